package container

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// TestPlanTime is what may be said of the clocks of a time namespace.
func TestPlanTime(t *testing.T) {
	if !linuxSince(timeLinux) {
		t.Skip("needs a kernel with time namespaces for the next program")
	}
	both := map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 7881, Nanosecs: 2718281}, "boottime": {Secs: -1}}
	for name, c := range map[string]struct {
		made    uintptr
		offsets map[string]specs.LinuxTimeOffset
		want    string
	}{
		"none":          {0, nil, " <nil>"},
		"as it is":      {unix.CLONE_NEWTIME, nil, " <nil>"},
		"both":          {unix.CLONE_NEWTIME, both, "boottime -1 0\nmonotonic 7881 2718281\n <nil>"},
		"nowhere":       {0, both, " time offsets without a new time namespace"},
		"another clock": {unix.CLONE_NEWTIME, map[string]specs.LinuxTimeOffset{"realtime": {}}, ` time offset of clock "realtime": must be of monotonic or boottime`},
	} {
		p := &plan.Plan{Unshare: c.made}
		err := planTime(p, c.offsets)
		if got := fmt.Sprint(p.TimeOffsets, " ", err); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// said is what a process in the container c1 says.
func (o *OCI) said(t *testing.T, p *specs.Process) string {
	t.Helper()
	read, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	code, err := o.Exec(t.Context(), "c1", OCIExec{Process: p, Stdio: [3]*os.File{nil, out, nil}})
	out.Close()
	b, rerr := io.ReadAll(read)
	if code != 0 || err != nil || rerr != nil {
		t.Errorf("exec of %q: %d, %v, %v: %q", p.Args, code, err, rerr, b)
	}
	return string(b)
}

// TestOCITime: the program of a container, one that is executed in it and another
// container that joins its namespace have the clocks that were asked for, with a user
// namespace and without.
func TestOCITime(t *testing.T) {
	if !linuxSince(timeLinux) {
		t.Skip("needs a kernel with time namespaces for the next program")
	}
	for name, users := range map[string]bool{"plain": false, "users": true} {
		t.Run(name, func(t *testing.T) {
			joined := ""
			change := func(s *specs.Spec) {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: joined})
				if joined == "" {
					s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 7881, Nanosecs: 2718281}}
				}
				if users {
					s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
					s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
					s.Linux.GIDMappings = s.Linux.UIDMappings
				}
			}
			o, bundle := newOCI(t, change, "sleep")
			if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
				t.Fatal(err)
			}
			offsets := process("probe", "read", "/proc/self/timens_offsets")
			check := func(what, got string) {
				t.Helper()
				if !strings.HasSuffix(strings.Join(strings.Fields(got), " "), " monotonic 7881 2718281 boottime 0 0") {
					t.Errorf("%s has the offsets %q", what, got)
				}
			}
			check("exec in a created one", o.said(t, offsets))
			if err := o.Start(t.Context(), "c1"); err != nil {
				t.Fatal(err)
			}
			first := o.expect(t, specs.StateRunning)
			check("exec", o.said(t, offsets))
			same := func(pid int) string {
				ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/time_for_children", pid))
				if err != nil {
					t.Fatal(err)
				}
				return ns
			}
			// Its own it has with its program only, which Start does not wait for.
			joined = fmt.Sprintf("/proc/%d/ns/time_for_children", first.Pid)
			other, bundle := newOCI(t, change, "sleep")
			other.Cgroup += "-joined"
			if err := other.Run(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
				t.Fatal(err)
			}
			second := other.expect(t, specs.StateRunning)
			if same(first.Pid) != same(second.Pid) || same(first.Pid) == same(os.Getpid()) {
				t.Errorf("time namespaces %s and %s, ours %s", same(first.Pid), same(second.Pid), same(os.Getpid()))
			}
		})
	}
}
