package engine

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTakesUpper: a tmpfs takes what containers write, an overlay does not, and nothing is
// left of having looked.
func TestTakesUpper(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts: needs root")
	}
	dir := t.TempDir()
	done := make(chan struct{})
	go func() { // its thread, with the namespace that has the mounts, ends with it
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Error(err)
			return
		}
		data := ""
		for _, part := range []string{"lowerdir", "upperdir", "workdir"} {
			path := filepath.Join(dir, part)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Error(err)
				return
			}
			data += "," + part + "=" + path
		}
		over := filepath.Join(dir, "over")
		if err := os.Mkdir(over, 0o700); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("overlay", over, "overlay", 0, data[1:]); err != nil {
			t.Error(err)
			return
		}
		for at, takes := range map[string]bool{dir: true, over: false} {
			if err := takesUpper(at); (err == nil) != takes {
				t.Errorf("%s: %v, want taken: %v", at, err, takes)
			}
			if left, _ := filepath.Glob(filepath.Join(at, "upper-*")); len(left) > 0 {
				t.Errorf("left in %s: %v", at, left)
			}
		}
	}()
	<-done
}
