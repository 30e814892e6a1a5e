package container

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/criu"
)

// impostor puts a program called criu first in the PATH. It notes its arguments, and
// brings back a process of the host's; of the moments at which criu calls, it calls at
// those, and notes where it and the process are then, and whether they are frozen.
func impostor(t *testing.T, moments ...string) (asked func() []string, dir string) {
	t.Helper()
	dir = t.TempDir()
	script := `#!/bin/sh
printf '%s\n' "$@" > ` + dir + `/args
while [ $# -gt 0 ]; do case $1 in --pidfile) p=$2;; --images-dir) i=$2;; --action-script) a=$2;; esac; shift; done
[ -z "$p" ] && exec touch $i/inventory.img
/bin/sleep 3600 <&3 >&4 2>&5 &
echo $! > $p
[ -z "$a" ] && exit 0
freezer=$(echo "$SAMPAN_HALT" | sed 's/.*"Freezer":"\([^"]*\)".*/\1/')
for m in ` + strings.Join(moments, " ") + `; do
	CRTOOLS_SCRIPT_ACTION=$m CRTOOLS_INIT_PID=$! $a || exit 1
	cat /proc/$$/cgroup > ` + dir + `/criu-$m
	cat /proc/$!/cgroup > ` + dir + `/first-$m
	cat $freezer > ` + dir + `/state-$m
done
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
	}, dir
}

// moments are when criu calls, in its order.
var moments = []string{"pre-restore", "setup-namespaces", "post-setup-namespaces", "post-restore", "pre-resume", "post-resume"} //nolint:gochecknoglobals // a constant

// TestImpostor: what comes out of a checkpoint with the namespaces and the rights of the
// host does not become a container, and does not live on.
func TestImpostor(t *testing.T) {
	asked, dir := impostor(t, moments...)
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
	seen := func(what, moment string) string { return readFileIn(t, dir, what+"-"+moment) }
	for i, moment := range moments {
		const outside = "/.." // as it is seen from the container's cgroup namespace
		in, halted := !strings.Contains(seen("criu", moment), outside), slices.Contains([]string{"FROZEN", "FREEZING", "1"}, strings.TrimSpace(seen("state", moment)))
		if strings.Contains(seen("first", moment), outside) || in != (i < 3) || halted != (i > 3) {
			t.Errorf("at %s criu is in the container's group: %v, which is halted: %v", moment, in, halted)
		}
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

func readFileIn(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNotHalted: a criu that lets go of processes before they stand still has brought back
// none.
func TestNotHalted(t *testing.T) {
	_, _ = impostor(t, "post-restore")
	b := newBox(t)
	b.sandbox(SandboxConfig{ID: "s"})
	cfg := b.config("c", probeSpec("sleep"))
	cfg.SandboxID, cfg.Restore = "s", &Restoration{Images: t.TempDir(), Work: filepath.Join(b.dir, "work")}
	err := b.Create(b.context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "had not been frozen") {
		t.Errorf("it was taken: %v", err)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(readFileIn(t, b.dir, "work/pid"))); err != nil || startTicks(pid) != 0 {
		t.Errorf("process %d lives on (%v)", pid, err)
	}
}

// realCRIU skips a test where there is no criu that works on this machine.
func realCRIU(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: criu")
	}
	path, err := criu.Find()
	if err != nil {
		t.Skip(err)
	}
	if out, err := exec.CommandContext(t.Context(), path, "check").CombinedOutput(); err != nil {
		t.Skipf("needs a criu that works with this kernel: %v: %s", err, out)
	}
}

// awaitWrite returns when somebody writes to a file.
func awaitWrite(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK) // with a deadline, which takes the poller
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var b [unix.SizeofInotifyEvent]byte
	if _, err := f.Read(b[:]); err != nil {
		t.Fatalf("nobody writes to %q: %v", path, err)
	}
}

// TestRestoredTimer: a program whose timer would have it go on, however it is stopped,
// does not run before it is judged.
func TestRestoredTimer(t *testing.T) {
	realCRIU(t)
	b := newBox(t)
	sb := b.sandbox(SandboxConfig{ID: "s", Hostname: "inside"})
	count := filepath.Join(b.dir, "count")
	config := func(id string) CreateConfig {
		if err := os.WriteFile(count, []byte("none"), 0o666); err != nil {
			t.Fatal(err)
		}
		cfg := b.in(sb, id, "insist", "/tmp/count")
		cfg.Spec.Process.NoNewPrivileges = false
		cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Source: count, Destination: "/tmp/count", Type: "bind", Options: []string{"bind"}})
		return cfg
	}
	changed := func() bool { return readFileIn(t, b.dir, "count") != "none" }
	b.start(config("c"))
	awaitWrite(t, count)
	images := filepath.Join(b.dir, "images")
	if err := b.Checkpoint(b.context(), "c", CheckpointConfig{Images: images, Work: filepath.Join(b.dir, "dump")}); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(b.context(), "c"); err != nil {
		t.Fatal(err)
	}
	refused := config("d")
	refused.Spec.Process.NoNewPrivileges = true
	refused.Restore = &Restoration{Images: images, Work: filepath.Join(b.dir, "work-d")}
	if err := b.Create(b.context(), refused); !errors.Is(err, ErrExceeds) {
		t.Fatalf("it was taken: %v", err)
	}
	if changed() {
		t.Errorf("it ran before it was refused: %s", readFileIn(t, b.dir, "count"))
	}
	taken := config("e")
	taken.Restore = &Restoration{Images: images, Work: filepath.Join(b.dir, "work-e")}
	b.start(taken)
	awaitWrite(t, count)
}

// TestOCIRestore: the processes are in the container's cgroup, and those of whoever has
// asked; and a checkpoint is what its flags say.
func TestOCIRestore(t *testing.T) {
	asked, _ := impostor(t)
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
