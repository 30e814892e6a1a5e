package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func madeVolume(home, name string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: Provisioner}},
		Spec:       corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: filepath.Join(home, name)}}},
	}
}

// A directory is made once, where volumes are made and nowhere else.
func TestProvide(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "made")
	v := New(Config{Root: filepath.Join(dir, "pods"), Made: home})
	if err := v.provide(madeVolume(home, "pvc-1")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(home, "pvc-1"))
	if err != nil || info.Mode() != os.ModeDir|0o777 {
		t.Fatalf("%v, %v", info, err)
	}
	kept := filepath.Join(home, "pvc-1", "kept")
	if err := errors.Join(os.WriteFile(kept, nil, 0o600), v.provide(madeVolume(home, "pvc-1"))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	if begun := filepath.Join(home, ".new-pvc-2"); os.Mkdir(begun, 0o700) != nil || v.provide(madeVolume(home, "pvc-2")) != nil {
		t.Error("what an earlier agent has begun is in the way")
	}
	others := madeVolume(home, "pvc-3")
	others.Annotations = nil
	climbing := madeVolume(home, "pvc-4")
	climbing.Spec.Local.Path = home + "/../pvc-4"
	up := madeVolume(home, "..")
	for _, pv := range []*corev1.PersistentVolume{others, climbing, up} {
		if err := v.provide(pv); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(home)
	if err != nil || len(left) != 2 {
		t.Errorf("%v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "pvc-4")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("made a directory elsewhere: %v", err)
	}
}

// Whatever a pod has left behind is removed, and nothing but that.
func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "made")
	v := New(Config{Root: filepath.Join(dir, "pods"), Made: home})
	canary := filepath.Join(dir, "canary")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(home, "pvc-1"), 0o777), os.Mkdir(canary, 0o755),
		os.WriteFile(filepath.Join(canary, "file"), nil, 0o600), os.MkdirAll(filepath.Join(home, "pvc-2/a"), 0o777),
		os.Symlink(canary, filepath.Join(home, "pvc-1/link")), os.Symlink("../..", filepath.Join(home, "pvc-1/up")),
		os.MkdirAll(filepath.Join(home, "pvc-1/0/1/2"), 0), os.WriteFile(filepath.Join(home, "pvc-1/.gone"), nil, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	deepen(t, filepath.Join(home, "pvc-1"), 3000)
	for _, name := range []string{"", ".", "..", "../canary", "pvc-1/a", ".gone"} {
		if err := v.Discard(t.Context(), name); err == nil {
			t.Errorf("%q was taken for a volume", name)
		}
	}
	for range 2 { // and when it is gone, it is gone
		if err := v.Discard(t.Context(), "pvc-1"); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(home); err != nil || len(left) != 1 || left[0].Name() != "pvc-2" {
		t.Errorf("%v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(canary, "file")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(home, "pvc-2/a")); err != nil {
		t.Error(err)
	}
}

// deepen puts directories into each other, further than a path can reach.
func deepen(t *testing.T, dir string, levels int) {
	t.Helper()
	at, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range levels {
		name := strings.Repeat("d", 100)
		if err := unix.Mkdirat(int(at.Fd()), name, 0o700); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Openat(int(at.Fd()), name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		at.Close()
		at = os.NewFile(uintptr(fd), name)
	}
	at.Close()
}

// A volume that a pod has mounted stays; so does what is mounted inside of one.
func TestDiscardHeedsMounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount")
	}
	dir := t.TempDir()
	home := filepath.Join(dir, "made")
	v := New(Config{Root: filepath.Join(dir, "pods"), Made: home})
	point := filepath.Join(dir, "pods/uid/volumes/kubernetes.io~local-volume/pvc-1")
	inner := filepath.Join(home, "pvc-1/a/b")
	canary := filepath.Join(dir, "canary")
	for _, d := range []string{point, inner, canary} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(canary, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mount := func(from, at string) (unmount func()) {
		if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		once := func() { _ = unix.Unmount(at, unix.MNT_DETACH) }
		t.Cleanup(once)
		return once
	}
	unmount := mount(filepath.Join(home, "pvc-1"), point)
	if err := v.Discard(t.Context(), "pvc-1"); !errors.Is(err, ErrInUse) {
		t.Errorf("mounted by a pod: %v", err)
	}
	unmount()
	unmount = mount(canary, inner)
	err := v.Discard(t.Context(), "pvc-1")
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("something is mounted inside: %v", err)
	}
	if _, err := os.Stat(filepath.Join(canary, "file")); err != nil {
		t.Errorf("what was mounted inside: %v", err)
	}
	unmount()
	// Where it is now mounted depends on how far the removal came.
	mounts, err := mountsUnder(home)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
	if err := v.Discard(t.Context(), "pvc-1"); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
