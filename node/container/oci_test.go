package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// newOCI is an OCI command line with a bundle whose container runs verbs.
func newOCI(t *testing.T, change func(*specs.Spec), verbs ...string) (*OCI, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces, mounts and cgroups")
	}
	dir := t.TempDir()
	o := &OCI{Root: filepath.Join(dir, "state"), Keeper: Sealed(func() ([]byte, error) { return built.keeper, nil }), Cgroup: fmt.Sprintf("/sampan-test-%d-oci-%s", os.Getpid(), filepath.Base(filepath.Dir(dir)))}
	spec := probeSpec(verbs...)
	spec.Root = &specs.Root{Path: built.rootfs, Readonly: true}
	if change != nil {
		change(spec)
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience) // the test's own is over
		defer cancel()
		if err := o.Delete(ctx, "c1", true); err != nil && !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		cgroup.RemoveEmpty(o.Cgroup)
		if left, _ := filepath.Glob("/sys/fs/cgroup/*" + o.Cgroup); len(left) > 0 {
			t.Errorf("cgroups are left: %v", left)
		}
	})
	return o, dir
}

func (o *OCI) expect(t *testing.T, want specs.ContainerState) specs.State {
	t.Helper()
	s, err := o.State("c1")
	if err != nil || s.Status != want {
		t.Fatalf("state %+v, %v; want %s", s, err, want)
	}
	return s
}

func TestOCILifecycle(t *testing.T) {
	hooked := filepath.Join(t.TempDir(), "hooked")
	o, bundle := newOCI(t, func(s *specs.Spec) {
		record := func(moment string) []specs.Hook {
			return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", `echo ` + moment + ` $(grep -o '"status":"[a-z]*"') >> ` + hooked}}}
		}
		s.Hooks = &specs.Hooks{
			Prestart:      record("prestart"), //nolint:staticcheck // deprecated, and used
			CreateRuntime: record("createRuntime"), CreateContainer: record("createContainer"), Poststart: record("poststart"), Poststop: record("poststop"),
		}
	}, "lines", ";", "exit", "3")
	ctx := t.Context()
	in, toC, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromC, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(bundle, "pid")
	if err := o.Create(ctx, "c1", OCICreate{Bundle: bundle, PidFile: pidFile, Stdio: [3]*os.File{in, out, out}}); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	s := o.expect(t, specs.StateCreated)
	if b, err := os.ReadFile(pidFile); err != nil || string(b) != itoa(s.Pid) || s.Bundle != bundle {
		t.Errorf("pid file %q, %v; state %+v", b, err, s)
	}
	if err := o.Create(ctx, "c1", OCICreate{Bundle: bundle}); !errors.Is(err, ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if err := o.Delete(ctx, "c1", false); !errors.Is(err, ErrState) {
		t.Errorf("deleted while created: %v", err)
	}
	if err := o.Start(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	o.expect(t, specs.StateRunning)
	if err := o.Start(ctx, "c1"); !errors.Is(err, ErrState) {
		t.Errorf("started twice: %v", err)
	}
	if code, err := o.Exec(ctx, "c1", OCIExec{Process: process("probe", "exit", "6")}); code != 6 || err != nil {
		t.Errorf("exec: %d, %v", code, err)
	}
	if code, err := o.Exec(ctx, "c1", OCIExec{Process: process("nothing")}); code != 127 || err == nil || !strings.HasSuffix(err.Error(), "executable file not found in $PATH") {
		t.Errorf("exec of nothing: %d, %v", code, err)
	}
	if _, err := toC.WriteString("hello\nquit\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(fromC); err != nil || string(b) != "got hello\ngot quit\n" {
		t.Errorf("printed %q, %v", b, err)
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(s.Pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 3 {
		t.Errorf("the container is our child and exits with 3: %v %v", ws, err)
	}
	o.expect(t, specs.StateStopped)
	if err := o.Delete(ctx, "c1", false); err != nil {
		t.Fatal(err)
	}
	if _, err := o.State("c1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("state after delete: %v", err)
	}
	want := "prestart \"status\":\"creating\"\ncreateRuntime \"status\":\"creating\"\ncreateContainer \"status\":\"creating\"\npoststart \"status\":\"running\"\npoststop \"status\":\"stopped\"\n"
	if b, err := os.ReadFile(hooked); err != nil || string(b) != want {
		t.Errorf("hooks saw %q, %v", b, err)
	}
}

func TestOCIKill(t *testing.T) {
	o, bundle := newOCI(t, nil, "sleep")
	ctx := t.Context()
	if err := o.Create(ctx, "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	if err := o.Start(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	s := o.expect(t, specs.StateRunning)
	if err := o.Kill(ctx, "c1", syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(s.Pid, &ws, 0, nil); err != nil || ws.Signal() != syscall.SIGKILL {
		t.Errorf("%v %v", ws, err)
	}
	if err := o.Kill(ctx, "c1", syscall.SIGTERM, false); !errors.Is(err, ErrState) {
		t.Errorf("killed twice: %v", err)
	}
}

// TestOCIKillShared: without a pid namespace of its own a container's processes do not end
// with the first, and SIGKILL is for all of them, also when that is gone.
func TestOCIKillShared(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprintf("gone=%v", gone), func(t *testing.T) { killShared(t, gone) })
	}
}

// killShared kills a container of two processes, the first of which may be gone before.
func killShared(t *testing.T, gone bool) {
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.PIDNamespace })
	}, "sleep")
	ctx := t.Context()
	if err := o.Run(ctx, "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	first, other := o.made.rec.PID, 0
	if _, err := o.Exec(ctx, "c1", OCIExec{Process: process("probe", "sleep"), Started: func(pid int) {
		other = pid
		if gone {
			killChild(first)
		}
		if err := o.Kill(ctx, "c1", syscall.SIGKILL, false); err != nil {
			t.Errorf("kill: %v", err)
			_ = syscall.Kill(pid, syscall.SIGKILL) // or Exec would wait for ever
		}
	}}); err != nil {
		t.Error(err)
	}
	if pids, err := o.made.group.Pids(); err != nil || slices.Contains(pids, other) {
		t.Errorf("left %v, %v", pids, err)
	}
	if !gone {
		_, _ = waitChild(first) // a zombie keeps its cgroup
	}
}

// TestSeenFromRoot: destinations may begin on the host.
func TestSeenFromRoot(t *testing.T) {
	for _, c := range []struct{ root, destination, want string }{
		{"/b/root", "/b/root/x/y", "/x/y"}, {"/b/root/", "/b/root", "/"}, {"/b/root", "/b/rooted", "/b/rooted"},
		{"/b/root", "/x/b/root", "/x/b/root"}, {"/", "/x", "/x"}, {"/b/root", "b/root/x", "b/root/x"},
	} {
		spec := &specs.Spec{Mounts: []specs.Mount{{Destination: c.destination}}}
		seenFromRoot(spec, c.root)
		if got := spec.Mounts[0].Destination; got != c.want {
			t.Errorf("%q below %q: %q, want %q", c.destination, c.root, got, c.want)
		}
	}
}

func TestOCIRefuses(t *testing.T) {
	o, bundle := newOCI(t, nil, "exit", "0")
	if err := o.Create(t.Context(), "../x", OCICreate{Bundle: bundle}); err == nil {
		t.Error("an id that is a path")
	}
	o, bundle = newOCI(t, func(s *specs.Spec) { s.Process.Terminal = true }, "exit", "0")
	if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle}); err == nil || !strings.Contains(err.Error(), "console socket") {
		t.Errorf("a terminal without a console socket: %v", err)
	}
	o, bundle = newOCI(t, func(s *specs.Spec) { s.Process.Args = []string{"/nothing"} })
	if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle}); codeOf(err) != 127 {
		t.Errorf("a program that is not there: %v", err)
	}
}

// A hook of the container's own that fails ends it, and nothing is left.
func TestOCIHookFails(t *testing.T) {
	for moment, set := range map[string]func(*specs.Hooks, []specs.Hook){
		"createRuntime":   func(h *specs.Hooks, l []specs.Hook) { h.CreateRuntime = l },
		"createContainer": func(h *specs.Hooks, l []specs.Hook) { h.CreateContainer = l },
	} {
		o, bundle := newOCI(t, func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{}
			set(s.Hooks, []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 7"}}})
		}, "exit", "0")
		err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle})
		if err == nil || !strings.Contains(err.Error(), "error running "+moment+` hook #0: "/bin/sh": exit status 7`) {
			t.Errorf("%s: %v", moment, err)
		}
		if _, err := o.State("c1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: state %v", moment, err)
		}
	}
}

func TestOCIPause(t *testing.T) {
	o, bundle := newOCI(t, nil, "sleep")
	ctx := t.Context()
	if err := o.Run(ctx, "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	if err := o.Resume("c1"); !errors.Is(err, ErrState) {
		t.Errorf("resumed while running: %v", err)
	}
	if err := o.Pause("c1"); err != nil {
		t.Fatal(err)
	}
	o.expect(t, Paused)
	if err := o.Resume("c1"); err != nil {
		t.Fatal(err)
	}
	s := o.expect(t, specs.StateRunning)
	if pids, err := o.Processes("c1"); err != nil || len(pids) != 1 || pids[0] != s.Pid {
		t.Errorf("processes %v, %v; want %d", pids, err, s.Pid)
	}
	limit := int64(17)
	if err := o.Update("c1", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}); err != nil {
		t.Fatal(err)
	}
	if u, err := o.Usage("c1"); err != nil || u.PidsLimit != 17 || u.Pids == 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if all, err := o.List(); err != nil || len(all) != 1 || all[0].ID != "c1" {
		t.Errorf("list %v, %v", all, err)
	}
	if err := o.Kill(ctx, "c1", syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if code, err := o.Wait("c1"); code != 128+int(syscall.SIGKILL) || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
}

// TestOCIGroupsOfItsOwn: a container without a cgroup namespace sees its own groups, and
// none of the machine's.
func TestOCIGroupsOfItsOwn(t *testing.T) {
	if unifiedCgroups() {
		t.Skip("needs cgroup v1: a mount of cgroup v2 shows the machine's, as with other runtimes")
	}
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.CgroupNamespace })
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}})
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool {
			return m.Destination == "/sys/fs/cgroup" && !slices.Equal(m.Options, []string{"ro"})
		})
	}, "stat", "/sys/fs/cgroup/pids/cgroup.procs", ";", "stat", "/sys/fs/cgroup/pids/release_agent", ";", "mkdir", "/sys/fs/cgroup/pids/x")
	read, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	err = o.Run(t.Context(), "c1", OCICreate{Bundle: bundle, Stdio: [3]*os.File{nil, out, out}})
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(read)
	// Only the root of a hierarchy has a release agent.
	want := "stat /sys/fs/cgroup/pids/cgroup.procs -rw-r--r--\nstat /sys/fs/cgroup/pids/release_agent no such file or directory\nmkdir read-only file system\n"
	if string(b) != want || err != nil {
		t.Errorf("saw %q, %v; want %q", b, err, want)
	}
}
