package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/node/image"
)

// A context comes from anywhere: its symlinks and names stay in it, the Dockerfile's and
// .dockerignore's too.
func TestNothingOutside(t *testing.T) {
	needRoot(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("TOP SECRET\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		link, to, dockerfile, want string
	}{
		"the Dockerfile":    {"Dockerfile", outside, "", "no Dockerfile at"},
		"the Dockerfile ..": {"Dockerfile", strings.Repeat("../", 20) + outside, "", "no Dockerfile at"},
		"what is copied":    {"l", outside, "FROM scratch\nCOPY l /l\n", "is not in the build context"},
		"above":             {"l", filepath.Dir(outside), "FROM scratch\nCOPY l/secret /l\n", "is not in the build context"},
		"a mount":           {"l", outside, "FROM scratch\nCOPY Dockerfile /\nRUN --mount=source=l,target=/x y\n", "source"},
		".dockerignore":     {".dockerignore", outside, "FROM scratch\nCOPY nosuch /\n", "is not in the build context"},
	} {
		dir := t.TempDir()
		if err := os.Symlink(c.to, filepath.Join(dir, c.link)); err != nil {
			t.Fatal(err)
		}
		if c.dockerfile != "" {
			if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(c.dockerfile), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Build(t.Context(), Options{Context: dir, Images: open(t), Cache: filepath.Join(t.TempDir(), "c"), Runner: echo{}})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A stream that says more than a tar may is refused, or kept below the context.
func TestOddContexts(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		entries []tar.Header
		want    string // an error, or the only file
	}{
		"nothing":          {nil, "Dockerfile"},
		"above":            {[]tar.Header{{Name: "../../up", Typeflag: tar.TypeReg}}, "up"},
		"absolute":         {[]tar.Header{{Name: "/abs", Typeflag: tar.TypeReg}}, "abs"},
		"through a link":   {[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, {Name: "l/through", Typeflag: tar.TypeReg}}, "file exists"},
		"a link to a host": {[]tar.Header{{Name: "h", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}}, "no such file"},
	} {
		dir := filepath.Join(t.TempDir(), "a", "b", "c")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		raw, err := ReadContext(t.Context(), bytes.NewReader(archived(t, c.entries...)), dir)
		if raw != nil {
			t.Errorf("%s: is a Dockerfile", name)
		}
		if err == nil {
			if _, statErr := os.Lstat(filepath.Join(dir, c.want)); statErr != nil && c.want != "Dockerfile" {
				t.Errorf("%s: %v", name, statErr)
			}
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// What a Dockerfile or .dockerignore can ask for has limits, with names.
func TestInputLimits(t *testing.T) {
	needRoot(t)
	many := "FROM scratch\n" + strings.Repeat("LABEL a=1\n", MaxInstructions)
	deep := "FROM scratch\nCOPY Dockerfile /" + strings.Repeat("d/", image.MaxPath) + "f\n"
	for name, archive := range map[string]string{
		"instructions": "-- Dockerfile --\n" + many,
		"a path":       "-- Dockerfile --\n" + deep,
		"patterns":     "-- Dockerfile --\nFROM scratch\nCOPY . /\n-- .dockerignore --\n" + strings.Repeat("x\n", maxPatterns+1),
		"a long one":   "-- Dockerfile --\nFROM scratch\nCOPY . /\n-- .dockerignore --\n" + strings.Repeat("x", maxIgnore+1) + "\n",
	} {
		if _, _, err := build(t, open(t), archive, nil); !errors.Is(err, image.ErrTooLarge) && (err == nil || !strings.Contains(err.Error(), "at most") && !strings.Contains(err.Error(), "more than")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
