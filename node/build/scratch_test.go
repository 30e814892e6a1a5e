package build

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What a build that was killed has left is cleared, mounts and all; what a living
// one works in stays.
func TestClear(t *testing.T) {
	needRoot(t)
	t.Setenv("TMPDIR", t.TempDir())
	cache := filepath.Join(t.TempDir(), "a cache") // with a blank, which mountinfo escapes
	living, err := newWorkDir(cache, runDirs)
	if err != nil {
		t.Fatal(err)
	}
	killed, err := newWorkDir(cache, runDirs)
	if err != nil {
		t.Fatal(err)
	}
	view, err := newWorkDir("", viewDirs)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []*workDir{living, killed, view} {
		at := filepath.Join(w.path, "secret")
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) }) // unless Clear has
		if err := os.WriteFile(filepath.Join(at, "key"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range []*workDir{killed, view} { // as the kernel does for a process that ends
		if err := w.lock.Close(); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(cache, "mounts")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Clear(cache); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{living.path: true, killed.path: false, view.path: false, other: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", path, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(living.path, "secret", "key")); err != nil {
		t.Error("the living build has lost its mount: ", err)
	}
	if left, err := mountsBelow(killed.path); err != nil || len(left) > 0 {
		t.Errorf("left mounted: %q, %v", left, err)
	}
}
