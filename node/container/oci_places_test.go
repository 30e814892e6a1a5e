package container

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestOCIRootPropagation: the root has the propagation that was asked for, which is seen
// in its mount when the host shares what the bundle lies on, whoever puts it together: a
// list of calls, or a stage, which a personality takes.
func TestOCIRootPropagation(t *testing.T) {
	for how, want := range map[string]string{
		"": "", "private": "", "rprivate": "", "slave": "master", "rslave": "master", "shared": "shared", "rshared": "shared", "unbindable": "unbindable",
	} {
		for _, staged := range []bool{false, true} {
			var root string
			o, bundle := newOCI(t, func(s *specs.Spec) {
				root = filepath.Join(t.TempDir(), "root")
				s.Root = &specs.Root{Path: root}
				s.Linux.RootfsPropagation = how
				if staged {
					s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux}
				}
			}, "sleep")
			shareRoot(t, root)
			if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
				t.Fatalf("%q: %v", how, err)
			}
			pid := o.expect(t, specs.StateRunning).Pid
			if got := rootTag(t, pid); got != want {
				t.Errorf("%q, staged %v: %q, want %q", how, staged, got, want)
			}
			if err := o.Delete(t.Context(), "c1", true); err != nil {
				t.Fatal(err)
			}
			_, _ = waitChild(pid)
		}
	}
}

// shareRoot shows the tests' root at a place that is shared with other namespaces.
func shareRoot(t *testing.T, at string) {
	t.Helper()
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(built.rootfs, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	if err := unix.Mount("", at, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
}

// rootTag is the word before the colon of a process's root in mountinfo(5): its propagation.
func rootTag(t *testing.T, pid int) string {
	t.Helper()
	f := mountFields(t, pid, "/")
	tag, _, _ := strings.Cut(f[6], ":")
	return strings.Trim(tag, "-")
}

// mountFields is the line of mountinfo(5) about what a process sees at a place.
func mountFields(t *testing.T, pid int, at string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 6 && f[4] == at {
			return f
		}
	}
	t.Fatalf("nothing at %s in\n%s", at, b)
	return nil
}

// TestCgroupPath is where a container's cgroup is: a relative path is below the runtime's own.
func TestCgroupPath(t *testing.T) {
	r := &Runtime{cfg: Config{Cgroup: "/own"}}
	for path, want := range map[string]string{
		"": "/own/c1", "/a/../b": "/b", "a/b": "/own/a/b", "../../a": "/own/a", "a:b": "/own/a:b",
		"system.slice:x:c1": `cgroupsPath "system.slice:x:c1": cgroups are not made through systemd`,
	} {
		got, err := r.cgroupPath(&CreateConfig{ID: "c1", Spec: &specs.Spec{Linux: &specs.Linux{CgroupsPath: path}}}, nil)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", path, got, want)
		}
	}
}

// TestOCIWrongNamespace: a path of another type of namespace is an error of create, which
// names what is wrong.
func TestOCIWrongNamespace(t *testing.T) {
	for kind, want := range map[specs.LinuxNamespaceType]string{
		specs.UserNamespace: `"/proc/self/ns/uts" is not a user namespace`, specs.NetworkNamespace: "setns /proc/self/ns/uts: invalid argument",
	} {
		o, bundle := newOCI(t, func(s *specs.Spec) {
			s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == kind })
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: "/proc/self/ns/uts"})
		}, "sleep")
		if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", kind, err, want)
		}
	}
}

// TestOCITooLittleMemory: a limit that no process begins with is what the error names.
func TestOCITooLittleMemory(t *testing.T) {
	o, bundle := newOCI(t, func(s *specs.Spec) {
		limit := int64(16 << 10)
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	}, "sleep")
	if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle}); err == nil || !strings.Contains(err.Error(), "OOM-killed") {
		t.Errorf("create: %v", err)
	}
}
