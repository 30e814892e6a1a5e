package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// OCI is the core of an OCI runtime's command line (runtime-spec 1.3, runtime.md):
// each method is one command, over a directory of state and no daemon. Containers
// are children of the caller, as containerd's and Podman's monitors expect, and
// not of the keeper.
//
// Hooks that run in the container's namespaces (createContainer, startContainer)
// are refused: a container that asks for them must not run without.
type OCI struct {
	// Root holds one directory a container.
	Root string
	// Keeper is the keeper program, which also plays a container's first process.
	Keeper []byte
	// Cgroup is the parent of containers whose spec names none.
	Cgroup string
	Log    *slog.Logger
}

// OCICreate are the options of create.
type OCICreate struct {
	Bundle string
	// PidFile is written with the pid when not empty.
	PidFile string
	// ConsoleSocket is a unix socket that receives the tty's master.
	ConsoleSocket string
	// Stdio are the container's streams when it has no tty; nil is /dev/null.
	Stdio [3]*os.File
}

// ociRecord is what is kept between commands.
type ociRecord struct {
	ID, Bundle  string
	PID         int
	Ticks       uint64
	Boot        string
	Created     time.Time
	Cgroup      string
	Annotations map[string]string
	Hooks       *specs.Hooks
}

const startFIFO = "start"

func (o *OCI) runtime() *Runtime {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Runtime{cfg: Config{Root: o.Root, Run: o.Root, Keeper: o.Keeper, Cgroup: o.Cgroup, Log: log}, log: log}
}

// Create is `create`: the container is ready, and its program has not begun.
func (o *OCI) Create(ctx context.Context, id string, opt OCICreate) (err error) {
	if err := checkID(id); err != nil {
		return err
	}
	spec := &specs.Spec{}
	if err := atomicfile.ReadJSON(filepath.Join(opt.Bundle, "config.json"), spec); err != nil {
		return fmt.Errorf("create container %q: %w", id, err)
	}
	if spec.Root == nil || spec.Linux == nil || spec.Process == nil {
		return fmt.Errorf("create container %q: config.json has no root, linux or process", id)
	}
	if h := spec.Hooks; h != nil && len(h.CreateContainer)+len(h.StartContainer) > 0 {
		return fmt.Errorf("create container %q: createContainer and startContainer hooks: %w", id, errors.ErrUnsupported)
	}
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return err
	}
	r := o.runtime()
	if err := os.Mkdir(r.dir(id), 0o700); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create container %q: %w", id, ErrExists)
	} else if err != nil {
		return err
	}
	rec := &ociRecord{ID: id, Bundle: opt.Bundle, Boot: bootID(), Created: now(), Annotations: spec.Annotations, Hooks: spec.Hooks}
	if err := o.create(ctx, r, rec, spec, opt); err != nil {
		err = errors.Join(err, o.remove(context.WithoutCancel(ctx), r, rec))
		return fmt.Errorf("create container %q: %w", id, err)
	}
	return nil
}

func (o *OCI) create(ctx context.Context, r *Runtime, rec *ociRecord, spec *specs.Spec, opt OCICreate) error {
	root := spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(opt.Bundle, root)
	}
	for i := range spec.Mounts { // sources of bind mounts may be relative to the bundle
		m := &spec.Mounts[i]
		if pm, err := planMount(*m); err == nil && pm.Bind && !filepath.IsAbs(m.Source) {
			m.Source = filepath.Join(opt.Bundle, m.Source)
		}
	}
	cfg := &CreateConfig{ID: rec.ID, Spec: spec, Rootfs: Rootfs{Path: root}, TTY: spec.Process.Terminal}
	p, child, err := r.translate(cfg, nil)
	if err != nil {
		return err
	}
	if rec.Cgroup, err = r.cgroupPath(cfg, nil); err != nil {
		return err
	}
	group, err := cgroup.Open(rec.Cgroup, spec.Linux.Resources, r.log)
	if err != nil {
		return err
	}
	if err := errors.Join(group.Create(), group.Throttle()); err != nil {
		return err
	}
	p.CgroupProcs = group.Procs()
	p.StartFIFO = filepath.Join(r.dir(rec.ID), startFIFO)
	if err := errors.Join(unix.Mkfifo(p.StartFIFO, 0o600), os.Mkdir(p.Root.Mountpoint, 0o700)); err != nil {
		return err
	}
	if p.Process.UserNS == filepath.Join(r.runDir(rec.ID), userPin) {
		if err := r.pinUserNS(mappingsOf(spec, nil), p.Process.UserNS); err != nil {
			return err
		}
	}
	if err := atomicfile.WriteJSON(r.file(rec.ID, planFile), p); err != nil {
		return err
	}
	proc, err := o.launch(ctx, p, child, stage{stdio: opt.Stdio, console: opt.ConsoleSocket})
	if err != nil {
		return err
	}
	rec.PID, rec.Ticks = proc.Pid, startTicks(proc.Pid)
	_ = proc.Release() // never fails
	if err := o.runHooks(ctx, rec, "prestart", true); err != nil {
		return err
	}
	if err := o.runHooks(ctx, rec, "createRuntime", true); err != nil {
		return err
	}
	if err := atomicfile.WriteJSON(r.file(rec.ID, stateFile), rec); err != nil {
		return err
	}
	return writePid(opt.PidFile, rec.PID)
}

func writePid(path string, pid int) error {
	if path == "" {
		return nil
	}
	return atomicfile.WriteVolatile(path, fmt.Appendf(nil, "%d", pid), 0o644)
}

func (o *OCI) load(id string) (*ociRecord, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	rec := &ociRecord{}
	err := atomicfile.ReadJSON(filepath.Join(o.Root, id, stateFile), rec)
	if errors.Is(err, os.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", id, err)
	}
	return rec, nil
}

// State is `state`.
func (o *OCI) State(id string) (specs.State, error) {
	rec, err := o.load(id)
	if err != nil {
		return specs.State{}, err
	}
	return o.state(rec), nil
}

func (o *OCI) state(rec *ociRecord) specs.State {
	s := specs.State{Version: specs.Version, ID: rec.ID, Bundle: rec.Bundle, Annotations: rec.Annotations, Status: specs.StateStopped}
	if alive := (&record{PID: rec.PID, Ticks: rec.Ticks, Boot: rec.Boot}).alive(); !alive {
		return s
	}
	s.Status, s.Pid = specs.StateRunning, rec.PID
	if _, err := os.Lstat(filepath.Join(o.Root, rec.ID, startFIFO)); err == nil {
		s.Status = specs.StateCreated
	}
	return s
}

// Start is `start`.
func (o *OCI) Start(ctx context.Context, id string) error {
	rec, err := o.load(id)
	if err != nil {
		return err
	}
	if s := o.state(rec).Status; s != specs.StateCreated {
		return fmt.Errorf("start container %q: is %s: %w", id, s, ErrState)
	}
	path := filepath.Join(o.Root, id, startFIFO)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start container %q: %w", id, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte{1}); err != nil {
		return fmt.Errorf("start container %q: %w", id, err)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return o.runHooks(ctx, rec, "poststart", false)
}

// Kill is `kill`; with all it goes to every process of the container.
func (o *OCI) Kill(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	rec, err := o.load(id)
	if err != nil {
		return err
	}
	if all {
		g, err := cgroup.Open(rec.Cgroup, nil, o.runtime().log)
		if err != nil {
			return err
		}
		return g.Signal(sig)
	}
	if o.state(rec).Status == specs.StateStopped {
		return fmt.Errorf("kill container %q: is stopped: %w", id, ErrState)
	}
	if err := unix.Kill(rec.PID, sig); err != nil {
		return fmt.Errorf("kill container %q: %w", id, err)
	}
	return nil
}

// Delete is `delete`; force kills a container that is not stopped, and makes one
// that is not there no error.
func (o *OCI) Delete(ctx context.Context, id string, force bool) error {
	rec, err := o.load(id)
	if force && errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if s := o.state(rec).Status; s != specs.StateStopped && !force {
		return fmt.Errorf("delete container %q: is %s: %w", id, s, ErrState)
	}
	if err := o.remove(ctx, o.runtime(), rec); err != nil {
		return fmt.Errorf("delete container %q: %w", id, err)
	}
	return o.runHooks(ctx, rec, "poststop", false)
}

func (o *OCI) remove(ctx context.Context, r *Runtime, rec *ociRecord) error {
	if rec.Cgroup != "" {
		g, err := cgroup.Open(rec.Cgroup, nil, r.log)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, removeWait)
		defer cancel()
		if err := g.Signal(unix.SIGKILL); err != nil {
			return err
		}
		if err := g.Remove(ctx); err != nil {
			return err
		}
	}
	_ = unix.Unmount(filepath.Join(r.dir(rec.ID), userPin), unix.MNT_DETACH) // there may be none
	return os.RemoveAll(r.dir(rec.ID))
}

// OCIExec are the options of exec.
type OCIExec struct {
	Process       *specs.Process
	PidFile       string
	ConsoleSocket string
	// Detach returns as soon as the process runs; the code is 0 then.
	Detach bool
	Stdio  [3]*os.File
}

// Exec is `exec`: it returns the exit code of the process.
func (o *OCI) Exec(ctx context.Context, id string, opt OCIExec) (int, error) {
	rec, err := o.load(id)
	if err != nil {
		return -1, err
	}
	if s := o.state(rec).Status; s != specs.StateRunning {
		return -1, fmt.Errorf("exec in container %q: is %s: %w", id, s, ErrState)
	}
	r := o.runtime()
	c := &container{r: r, filePlan: r.file(id, planFile)}
	c.rec = record{ID: id, State: Running, PID: rec.PID, Ticks: rec.Ticks, Boot: rec.Boot}
	p, err := c.execPlan(ExecConfig{Process: opt.Process, TTY: opt.Process.Terminal})
	if err != nil {
		return -1, fmt.Errorf("exec in container %q: %w", id, err)
	}
	target, err := c.pidfd()
	if err != nil {
		return -1, fmt.Errorf("exec in container %q: %w", id, err)
	}
	t := os.NewFile(uintptr(target), "pidfd")
	defer t.Close()
	child := &plan.Child{PIDNS: fmt.Sprintf("/proc/%d/ns/pid", rec.PID)}
	proc, err := o.launch(ctx, p, child, stage{stdio: opt.Stdio, console: opt.ConsoleSocket, target: t})
	if err != nil {
		return codeOf(err), fmt.Errorf("exec in container %q: %w", id, err)
	}
	if err := writePid(opt.PidFile, proc.Pid); err != nil {
		return -1, err
	}
	if opt.Detach {
		return 0, proc.Release()
	}
	st, err := proc.Wait()
	if err != nil {
		return -1, err
	}
	ws := st.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}
