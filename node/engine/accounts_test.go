package engine

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The united layers are seen the same way by what every kernel can do as by what newer
// ones can, and no symbolic link leads out of them.
func TestOpenLayers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	lower := []string{filepath.Join(dir, "top"), filepath.Join(dir, "middle"), filepath.Join(dir, "bottom")}
	for i, files := range []map[string]string{{"usr/etc/passwd": "top"}, {}, {"usr/etc/passwd": "hidden", "usr/etc/group": "bottom"}} {
		if err := os.Mkdir(lower[i], 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			path := filepath.Join(lower[i], name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink("/usr/etc", filepath.Join(lower[1], "etc")); err != nil {
		t.Fatal(err)
	}
	for how, open := range map[string]func([]string) (int, error){"by this kernel": openLayers, "by a name": openNamed} {
		root, err := open(lower)
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		for name, want := range map[string]string{"etc/passwd": "top", "etc/group": "bottom", "etc/shadow": ""} {
			if got, err := readWithin(root, name); err != nil || string(got) != want {
				t.Errorf("%s: %s: %q, %v", how, name, got, err)
			}
		}
		unix.Close(root)
	}
	if _, err := os.Stat(filepath.Join(lower[0], "etc")); err == nil {
		t.Error("the mount is left where the rest of the process sees it")
	}
}
