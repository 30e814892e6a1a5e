package agent

import (
	"errors"
	"fmt"
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
	cfg := Config{Root: filepath.Join(dir, "pods"), CgroupRoot: fmt.Sprintf("sampan-purge-test-%d", os.Getpid())}
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
	pod := podGroup(t, cfg.CgroupRoot)
	for range 2 { // a second time finds nothing and succeeds
		if err := Purge(cfg); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{cfg.Root, filepath.Join(dir, "logs", "pods"), pod} {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left (%v)", d, err)
		}
	}
}

// podGroup makes the cgroup of a pod that another engine has left.
func podGroup(t *testing.T, root string) string {
	t.Helper()
	top := filepath.Join(cgroupMount, root)
	if memory := filepath.Join(cgroupMount, "memory"); isDir(memory) {
		top = filepath.Join(memory, root)
	}
	pod := filepath.Join(top, "kubepods", "burstable", "podu1")
	if err := os.MkdirAll(pod, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for d := pod; d != filepath.Dir(top); d = filepath.Dir(d) {
			_ = unix.Rmdir(d) // gone, if all went well
		}
	})
	return pod
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// TestPurgeImages: what others keep where plugins look for a kubelet stays.
func TestPurgeImages(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Root: filepath.Join(dir, "pods")}
	touch(t, filepath.Join(dir, "kubelet", "image_manager", "pulled", "x"))
	touch(t, filepath.Join(dir, "kubelet", "config.yaml"))
	for range 2 {
		if err := PurgeImages(cfg); err != nil {
			t.Fatal(err)
		}
	}
	if left := names(t, filepath.Join(dir, "kubelet")); len(left) != 1 || left[0] != "config.yaml" {
		t.Errorf("left: %v", left)
	}
}
