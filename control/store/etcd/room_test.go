package etcd_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/etcd"
)

// TestDiskFull fills the disk under a server, on a file system of its own: what is new is
// refused, what is there can be read and deleted, what was acknowledged reaches the
// database, and with room again all works, with nobody's help.
func TestDiskFull(t *testing.T) {
	for _, size := range []string{"64M", "400M"} {
		t.Run(size, func(t *testing.T) { diskFull(t, smallDisk(t, size)) })
	}
}

func diskFull(t *testing.T, disk string) {
	server := start(t, etcd.EmbedConfig{Dir: filepath.Join(disk, "etcd")})
	s := server.Store()
	revision, err := s.Create(t.Context(), "/before", []byte("before"), 0)
	if err != nil {
		t.Fatal(err)
	}
	// Not yet in the database, for which the disk has no room left then.
	for _, key := range []string{"/a", "/b", "/c"} {
		if _, err := s.Create(t.Context(), key, make([]byte, 1<<20), 0); err != nil {
			t.Fatal(err)
		}
	}
	filler := filepath.Join(disk, "filler")
	fill(t, filler)
	if _, err := s.Create(t.Context(), "/new", []byte("new"), 0); !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), disk) {
		t.Errorf("create: %v", err)
	}
	if _, err := s.Update(t.Context(), "/before", []byte("after"), revision, 0); !errors.Is(err, store.ErrFull) {
		t.Errorf("update: %v", err)
	}
	if _, err := s.Delete(t.Context(), "/a", 0); err != nil {
		t.Errorf("delete: %v", err)
	}
	server.Commit() // as it does every few seconds; etcd ends the process if that fails
	if _, _, err := s.Get(t.Context(), "/before"); err != nil {
		t.Errorf("get: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), "/new", []byte("new"), 0); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// fill takes every byte of a disk.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 16 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 8
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// smallDisk is a file system of its own, which goes with the test.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("there is no mkfs.ext4")
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	for _, c := range [][]string{{"truncate", "-s", size, image}, {mkfs, "-q", "-F", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", c[0], err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
