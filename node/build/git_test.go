package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseGit(t *testing.T) {
	for text, want := range map[string]GitContext{
		"https://example.com/a/b.git":           {Repository: "https://example.com/a/b.git"},
		"https://example.com/b.git#v1:sub/dir":  {Repository: "https://example.com/b.git", Ref: "v1", Dir: "sub/dir"},
		"git@example.com:a/b.git#:dir":          {Repository: "git@example.com:a/b.git", Dir: "dir"},
		"ssh://git@example.com:22/b#refs/x/y":   {Repository: "ssh://git@example.com:22/b", Ref: "refs/x/y"},
		"git://example.com/b.git#0123456789abc": {Repository: "git://example.com/b.git", Ref: "0123456789abc"},
		"github.com/a/b#v1":                     {Repository: "https://github.com/a/b.git", Ref: "v1"},
		"https://example.com/b.git?branch=x&subdir=d&commit=abc": {
			Repository: "https://example.com/b.git", Ref: "refs/heads/x", Dir: "d", Commit: "abc",
		},
		"https://example.com/b.git?tag=v1&keep-git-dir&submodules=false": {
			Repository: "https://example.com/b.git", Ref: "refs/tags/v1", KeepHistory: true, Bare: true,
		},
		"https://example.com/b.git?colour=red": {Repository: "https://example.com/b.git", wrong: `unexpected query "colour"`},
		"https://example.com/b.git?ref=a#b":    {Repository: "https://example.com/b.git", Ref: "b", wrong: `ref conflicts: "b" vs "a"`},
	} {
		if got, ok := ParseGit(text); !ok || got != want {
			t.Errorf("%s: %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"https://example.com/a.tar.gz", ".", "dir.git", "/abs/dir.git", "a#b", "git@host"} {
		if got, ok := ParseGit(text); ok {
			t.Errorf("%s is %+v", text, got)
		}
	}
}

// A real repository, with a branch, a tag, a directory, and one that leads out.
func TestGitContext(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	work := filepath.Join(t.TempDir(), "work.git")
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", work, "-c", "user.name=a", "-c", "user.email=a@b.example"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.MkdirAll(filepath.Join(work, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(work, "sub", "file"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run("init", "-q", "-b", "main")
	write("first")
	if err := os.Symlink("/etc", filepath.Join(work, "out")); err != nil {
		t.Fatal(err)
	}
	run("add", ".")
	run("commit", "-q", "-m", "first")
	run("tag", "v1")
	first := run("rev-parse", "HEAD")
	write("second")
	run("commit", "-q", "-a", "-m", "second")
	for fragment, want := range map[string]string{
		"": "second", "#v1": "first", "#main:sub": "second", "#" + first: "first", "#" + first[:10] + ":sub": "first",
	} {
		g, ok := ParseGit("file://" + work + fragment)
		dir, err := g.Checkout(t.Context(), t.TempDir())
		if !ok || err != nil {
			t.Errorf("%q: %v, %v", fragment, ok, err)
			continue
		}
		file := filepath.Join(dir, "sub", "file")
		if g.Dir == "sub" {
			file = filepath.Join(dir, "file")
		}
		raw, err := os.ReadFile(file)
		if err != nil || string(raw) != want {
			t.Errorf("%q: %q, %v; want %q", fragment, raw, err, want)
		}
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
			t.Errorf("%q: the history is there", fragment)
		}
	}
	for fragment, want := range map[string]string{
		"#nowhere": "nowhere", "#main:none": "not found", "#main:out": "leads out of it", "#--upload-pack=x": "invalid",
		"#main:../../..": "", // the root of the repository, as an absolute path would have it
	} {
		g, _ := ParseGit("file://" + work + fragment)
		_, err := g.Checkout(t.Context(), t.TempDir())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", fragment, err, want)
		}
	}
}
