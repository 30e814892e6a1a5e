package spec

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// layers are three, topmost first, with everything that a layer can do to a path.
func layers(t *testing.T) (dirs []string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("whiteouts are devices and trusted attributes: only root makes them")
	}
	root := t.TempDir()
	for _, l := range []string{"top", "mid", "low"} {
		dirs = append(dirs, filepath.Join(root, l))
	}
	for _, d := range []string{"top/a/b", "mid/a/b", "low/a/b", "low/only/deep", "mid/opaque", "low/opaque", "low/gone", "top/hides", "low/hides", "top"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, err := range map[string]error{
		"opaque":   unix.Lsetxattr(filepath.Join(root, "mid/opaque"), opaqueAttribute, []byte("y"), 0),
		"whiteout": unix.Mknod(filepath.Join(root, "top/gone"), unix.S_IFCHR, 0),
		"file":     os.WriteFile(filepath.Join(root, "mid/hides"), nil, 0o644),
		"plain":    os.WriteFile(filepath.Join(root, "low/file"), nil, 0o644),
		"link":     os.Symlink("/etc", filepath.Join(root, "top/link")),
	} {
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return dirs
}

func TestPart(t *testing.T) {
	dirs := layers(t)
	for path, want := range map[string]string{
		"": "top mid low", ".": "top mid low", "a/b": "top/a/b mid/a/b low/a/b", "a//b/": "top/a/b mid/a/b low/a/b",
		"only/deep": "low/only/deep", "opaque": "mid/opaque", "hides": "top/hides",
	} {
		got, err := part(dirs, path)
		if err != nil {
			t.Errorf("%q: %v", path, err)
		}
		var names []string
		for _, g := range got {
			name, _ := strings.CutPrefix(g, filepath.Dir(dirs[0])+"/")
			names = append(names, name)
		}
		if !slices.Equal(names, strings.Fields(want)) {
			t.Errorf("%q is %v, not %s", path, names, want)
		}
	}
	for _, path := range []string{"gone", "file", "file/x", "link", "link/ssl", "../etc", "a/../../etc", "/etc", "nowhere", "a/b/c"} {
		if got, err := part(dirs, path); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is %v, %v", path, got, err)
		}
	}
}
