package image

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a container has changed, done through a real overlay.
func TestChanges(t *testing.T) {
	needRoot(t)
	s := open(t)
	build(t, s, "app:v1", layerTar(t,
		entry{name: "etc/", kind: tar.TypeDir, mode: 0o755}, entry{name: "etc/conf", body: "a"}, entry{name: "etc/old", body: "b"},
		entry{name: "lib/", kind: tar.TypeDir, mode: 0o755}, entry{name: "lib/one", body: "1"}, entry{name: "lib/two", body: "2"},
		entry{name: "same", body: "s"}, entry{name: "gone", body: "g"},
	), layerTar(t, entry{name: ".wh.gone"}))
	root, err := s.Prepare("c1", "app:v1")
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(root.Lower, ":"), root.Upper, root.Work)
	if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
		t.Skipf("overlay can't be mounted: %v", err)
	}
	defer func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	in := func(name string) string { return filepath.Join(at, name) }
	for _, err := range []error{
		os.WriteFile(in("etc/conf"), []byte("changed"), 0o644), os.Remove(in("etc/old")), os.WriteFile(in("gone"), []byte("again"), 0o644),
		os.RemoveAll(in("lib")), os.Mkdir(in("lib"), 0o755), os.WriteFile(in("lib/two"), []byte("new"), 0o644),
		os.MkdirAll(in("var/run/secrets"), 0o755), os.WriteFile(in("etc/hosts"), nil, 0o644), os.Mkdir(in("empty"), 0o755),
		os.Symlink("/etc", in("out")), os.WriteFile(in("temporary"), nil, 0o644), os.Remove(in("temporary")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	mounted := []string{"/etc/hosts", "/var/run/secrets"}
	got, err := s.Changes("c1", func(path string) bool { return slices.Contains(mounted, path) })
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range got {
		lines = append(lines, string(c.Kind)+" "+c.Path)
	}
	want := []string{"A /empty", "C /etc", "C /etc/conf", "D /etc/old", "A /gone", "C /lib", "D /lib/one", "C /lib/two", "A /out"}
	if !slices.Equal(lines, want) {
		t.Errorf("changes %q, want %q", lines, want)
	}
	if _, err := s.Changes("c2", nil); err == nil {
		t.Error("a container that isn't there has changes")
	}
}
