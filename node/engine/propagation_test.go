package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestPropagationBesideTheEngine: a volume on the very mount that holds the engine's own
// directories, as where all a machine has is on one, still gets what the host mounts and
// gives it what the container does, by its mode. The roots of containers, which lie
// there too, never spread.
func TestPropagationBesideTheEngine(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("containers need root")
	}
	root := t.TempDir()
	if err := unix.Mount("beside", root, "tmpfs", 0, "size=256m"); err != nil {
		t.Skip("the test may not mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", root, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", root)
	n := newNode(t)
	for mode, want := range map[rt.MountPropagation]struct{ in, out bool }{
		rt.MountPropagation_PROPAGATION_PRIVATE:           {false, false},
		rt.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: {true, false},
		rt.MountPropagation_PROPAGATION_BIDIRECTIONAL:     {true, true},
	} {
		volume := filepath.Join(root, "volume-"+mode.String())
		for _, name := range []string{"host", "inside"} {
			n.must(os.MkdirAll(filepath.Join(volume, name), 0o777))
		}
		id := n.mighty(&rt.Mount{ContainerPath: "/data", HostPath: volume, Propagation: mode})
		host := filepath.Join(volume, "host")
		n.must(unix.Mount("host", host, "tmpfs", 0, "size=64k"))
		n.must(os.WriteFile(filepath.Join(host, "file"), []byte("mounted"), 0o600))
		if got := n.probe(id, "cat", "/data/host/file"); (got == "mounted") != want.in {
			t.Errorf("%v: the container sees %q of what the host mounts", mode, got)
		}
		if got := n.probe(id, "tmpfs", "/data/inside"); strings.Contains(got, "denied") {
			t.Fatalf("%v: mounting inside: %s", mode, got)
		}
		if _, err := os.Stat(filepath.Join(volume, "inside", "file")); (err == nil) != want.out {
			t.Errorf("%v: the host sees of what the container mounts: %v", mode, err)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		n.must(err)
		if strings.Contains(string(mounts), " - overlay overlay rw,lowerdir+="+root) {
			t.Errorf("%v: the container's root has spread to the host", mode)
		}
		_ = unix.Unmount(filepath.Join(volume, "inside"), unix.MNT_DETACH) // there is none where nothing spreads
		n.must(unix.Unmount(host, unix.MNT_DETACH))
	}
}

// mighty is a privileged container that has a mount.
func (n *node) mighty(m *rt.Mount) (id string) {
	n.t.Helper()
	ctx, name := n.t.Context(), filepath.Base(m.HostPath)
	box := &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: name, Namespace: "test", Uid: name}, LogDirectory: filepath.Join(n.dir, "logs"),
		Linux: &rt.LinuxPodSandboxConfig{SecurityContext: &rt.LinuxSandboxSecurityContext{Privileged: true}}}
	made, err := n.engine.RunPodSandbox(ctx, &rt.RunPodSandboxRequest{Config: box})
	n.must(err)
	c, err := n.engine.CreateContainer(ctx, &rt.CreateContainerRequest{PodSandboxId: made.PodSandboxId, SandboxConfig: box, Config: &rt.ContainerConfig{
		Metadata: &rt.ContainerMetadata{Name: "c"}, Image: &rt.ImageSpec{Image: examImage}, Args: []string{"wait"}, LogPath: "c.log", Mounts: []*rt.Mount{m},
		Linux: &rt.LinuxContainerConfig{SecurityContext: &rt.LinuxContainerSecurityContext{Privileged: true}}}})
	n.must(err)
	_, err = n.engine.StartContainer(ctx, &rt.StartContainerRequest{ContainerId: c.ContainerId})
	n.must(err)
	return c.ContainerId
}
