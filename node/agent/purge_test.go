package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPurgeUnmountsAndRemoves(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	cfg := Config{Root: filepath.Join(dir, "pods"), CgroupRoot: "sampan-purge-test"}
	mount := filepath.Join(cfg.Root, "u1", "volumes", "kubernetes.io~secret", "s")
	for _, d := range []string{mount, filepath.Join(dir, "logs", "pods", "ns_p_u1")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mount, unix.MNT_DETACH) })
	for range 2 { // a second time finds nothing and succeeds
		if err := Purge(cfg); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{cfg.Root, filepath.Join(dir, "logs", "pods")} {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left (%v)", d, err)
		}
	}
}
