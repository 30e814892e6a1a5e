package container

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/criu"
)

// impostor puts a program called criu first in the PATH. It notes its arguments, and
// brings back a process of the host's.
func impostor(t *testing.T) (asked func() []string) {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
printf '%s\n' "$@" > ` + dir + `/args
while [ $# -gt 0 ]; do case $1 in --pidfile) p=$2;; --images-dir) i=$2;; esac; shift; done
[ -z "$p" ] && exec touch $i/inventory.img
/bin/sleep 3600 <&3 >&4 2>&5 &
echo $! > $p
`
	if err := os.WriteFile(filepath.Join(dir, "criu"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		b, err := os.ReadFile(filepath.Join(dir, "args"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

// TestImpostor: what comes out of a checkpoint with the namespaces and the rights of the
// host does not become a container, and does not live on.
func TestImpostor(t *testing.T) {
	asked := impostor(t)
	b := newBox(t)
	if _, err := b.CreateSandbox(b.context(), SandboxConfig{ID: "s", Hostname: "inside"}); err != nil {
		t.Fatal(err)
	}
	images := t.TempDir()
	if err := os.WriteFile(filepath.Join(images, criu.DescriptorsFile), []byte(`["","pipe:[7]","file[1:2]"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(b.dir, "source")
	if err := os.WriteFile(source, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	spec := probeSpec("sleep")
	spec.Mounts = append(spec.Mounts, specs.Mount{Source: source, Destination: "/tmp/bound", Type: "bind", Options: []string{"bind"}})
	cfg := b.config("c", spec)
	cfg.SandboxID, cfg.Restore = "s", &Restoration{Images: images, Work: filepath.Join(b.dir, "work")}
	err := b.Create(b.context(), cfg)
	if !errors.Is(err, ErrExceeds) {
		t.Fatalf("it was taken: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(b.dir, "work", "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || startTicks(pid) != 0 {
		t.Errorf("process %s lives on (%v)", text, err)
	}
	args := asked()
	for _, want := range []string{"--leave-stopped", "mnt[/tmp/bound]:" + source, "fd[4]:pipe:[7]", "fd[5]:file[1:2]", "fd[6]:" + criu.NetLabel,
		"uts:" + filepath.Join(b.sandboxRoot(), "s", "uts"), "ipc:" + filepath.Join(b.sandboxRoot(), "s", "ipc")} {
		if !slices.Contains(args, want) {
			t.Errorf("criu was not asked for %q: %q", want, args)
		}
	}
	for change, set := range map[string]func(*CreateConfig){
		"terminal": func(c *CreateConfig) { c.TTY = true },
		"sandbox":  func(c *CreateConfig) { c.SandboxID = "" },
		"hooks":    func(c *CreateConfig) { c.Spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true"}}} },
	} {
		other := cfg
		copied := *spec
		other.Spec = &copied
		set(&other)
		if err := b.Create(b.context(), other); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", change, err)
		}
	}
}

// TestOCIRestore: the processes are in the container's cgroup, and those of whoever has
// asked; and a checkpoint is what its flags say.
func TestOCIRestore(t *testing.T) {
	asked := impostor(t)
	o, bundle := newOCI(t, nil, "sleep")
	if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	if err := o.Start(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(t.TempDir(), "images")
	opt := OCICheckpoint{criu.Dump{Common: criu.Common{Images: images, Established: true}, LeaveRunning: true}}
	if err := o.Checkpoint(t.Context(), "c1", opt); err != nil {
		t.Fatal(err)
	}
	if args := asked(); !slices.Contains(args, "--leave-running") || !slices.Contains(args, "--tcp-established") || slices.Contains(args, "--tcp-close") {
		t.Errorf("asked for %q", args)
	} else if words := strings.Join(args, " "); !slices.Contains(args, "--manage-cgroups=soft") || strings.Contains(words, "file[") {
		t.Errorf("runc could not restore it, its groups are left out or its streams are the host's: %s", words)
	}
	if s, err := o.State("c1"); err != nil || s.Status != specs.StateRunning {
		t.Errorf("left running it is %v, %v", s.Status, err)
	}
	opt.LeaveRunning = false
	if err := o.Checkpoint(t.Context(), "c1", opt); err != nil {
		t.Fatal(err)
	}
	if _, err := o.State("c1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after its checkpoint: %v", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	pidFile := filepath.Join(bundle, "pid")
	if err := o.Restore(t.Context(), "c1", OCIRestore{Restore: criu.Restore{Common: criu.Common{Images: images}}, Bundle: bundle, PidFile: pidFile}); err != nil {
		t.Fatal(err)
	}
	s, err := o.State("c1")
	if err != nil || s.Status != specs.StateRunning {
		t.Errorf("restored it is %v, %v", s.Status, err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil || string(text) != strconv.Itoa(s.Pid) {
		t.Errorf("pid %q, %v, want %d", text, err, s.Pid)
	}
	pids, err := o.Processes("c1")
	if err != nil || !slices.Contains(pids, s.Pid) {
		t.Errorf("process %d is not among %v, %v", s.Pid, pids, err)
	}
	if err := o.Kill(t.Context(), "c1", unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if code, err := waitChild(s.Pid); err != nil || code != 128+int(unix.SIGKILL) {
		t.Errorf("whoever asked gets %d, %v", code, err)
	}
	if err := o.Delete(t.Context(), "c1", false); err != nil {
		t.Error(err)
	}
}
