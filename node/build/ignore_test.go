package build

import (
	"slices"
	"strings"
	"testing"
)

// What .dockerignore means, by the rules of Docker's reference, "Syntax of
// .dockerignore files".
func TestDockerignore(t *testing.T) {
	needRoot(t)
	const context = "-- a.md --\na\n-- README.md --\nr\n-- dir/a.md --\nda\n-- dir/keep.md --\ndk\n-- dir/sub/x.go --\nx\n-- temp1/f --\nt\n-- other/temp/f --\nt\n"
	for name, c := range map[string]struct{ ignore, want string }{
		"nothing":              {"# a comment\n\n", "/a.md /README.md /dir/a.md /dir/keep.md /dir/sub/x.go /temp1/f /other/temp/f"},
		"a file":               {"a.md\n", "/README.md /dir/a.md /dir/keep.md /dir/sub/x.go /temp1/f /other/temp/f"},
		"slashes and blanks":   {"  /dir/sub/  \n./temp1\n", "/a.md /README.md /dir/a.md /dir/keep.md /other/temp/f"},
		"one level":            {"*/temp*\n*.md\n", "/dir/a.md /dir/keep.md /dir/sub/x.go /temp1/f"},
		"every level":          {"**/*.md\n**/temp\n", "/dir/sub/x.go /temp1/f"},
		"one character":        {"temp?\n", "/a.md /README.md /dir/a.md /dir/keep.md /dir/sub/x.go /other/temp/f"},
		"exceptions":           {"*.md\n!README.md\ndir\n!dir/keep.md\n", "/README.md /dir/keep.md /temp1/f /other/temp/f"},
		"the last line counts": {"*.md\n!README*.md\nREADME.md\n", "/dir/a.md /dir/keep.md /dir/sub/x.go /temp1/f /other/temp/f"},
		"everything but":       {"*\n!dir/sub\n", "/dir/sub/x.go"},
		"the Dockerfile":       {"Dockerfile\n.dockerignore\n**\n!a.md\n", "/a.md"},
		"up and out":           {"../a.md\n", "/a.md /README.md /dir/a.md /dir/keep.md /dir/sub/x.go /temp1/f /other/temp/f"},
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			img, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nCOPY . /\n-- .dockerignore --\n"+c.ignore+context, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range files(t, store, img) {
				path, rest, _ := strings.Cut(line, " ")
				if strings.HasPrefix(rest, "-") && path != "/Dockerfile" && path != "/.dockerignore" {
					got = append(got, path)
				}
			}
			want := strings.Fields(c.want)
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("copied %q, want %q", got, want)
			}
		})
	}
}
