package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/selinux"
	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// startFailed is the exit code of a container whose program never ran, as
// containerd reports it.
const startFailed = 128

// Rootfs is a container's root: an overlay of Lower (topmost first) with Upper and
// Work, or the plain directory Path. Without Upper it is read-only.
type Rootfs struct {
	Lower       []string
	Upper, Work string
	Path        string
	ReadOnly    bool
}

// CreateConfig describes a container.
type CreateConfig struct {
	ID string
	// SandboxID names the sandbox whose namespaces it joins; empty means that the
	// spec alone decides.
	SandboxID string
	Spec      *specs.Spec
	// bundle is where the spec comes from, when it comes from a directory.
	bundle string
	Rootfs Rootfs
	// LogPath is the CRI log file, whose directory must exist; empty for none.
	LogPath string
	// Runtime is the path of another OCI runtime that puts the container together;
	// empty means this one. It must leave ordinary processes in ordinary namespaces:
	// everything after the start is done by this runtime.
	Runtime string
	// Restore, when there is one, is the checkpoint that its processes come out of. What
	// Spec has them execute is not executed.
	Restore *Restoration
	// TTY gives it a terminal; Stdin keeps its input open; StdinOnce closes that
	// when the first attached client ends its own.
	TTY, Stdin, StdinOnce bool
}

// Create puts a container together up to the moment before its program runs:
// cgroup, namespaces, mounts. On an error nothing is left.
func (r *Runtime) Create(ctx context.Context, cfg CreateConfig) error {
	free, err := r.reserve(cfg.ID)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	defer free()
	c, err := r.create(ctx, &cfg)
	if err != nil {
		return fmt.Errorf("create container %q: %w", cfg.ID, err)
	}
	r.mu.Lock()
	r.containers[cfg.ID] = c
	r.mu.Unlock()
	// An exit may have come before the container was known.
	if e, err := r.readExit(cfg.ID); err == nil {
		c.finish(e)
	}
	return nil
}

func (r *Runtime) create(ctx context.Context, cfg *CreateConfig) (_ *container, err error) {
	var sb *Sandbox
	if cfg.SandboxID != "" {
		if sb, err = r.Sandbox(cfg.SandboxID); err != nil {
			return nil, err
		}
	}
	p, child, err := r.translate(cfg, sb)
	if err != nil {
		return nil, err
	}
	for name := range cfg.Spec.Linux.NetDevices { // a container without its network is none that was asked for
		return nil, fmt.Errorf("network device %q: those of pods come from their network", name)
	}
	if err := bindSourcesExist(p, ""); err != nil {
		return nil, err
	}
	path, err := r.cgroupPath(cfg, sb)
	if err != nil {
		return nil, err
	}
	c := &container{r: r, ended: make(chan struct{}), filePlan: r.file(cfg.ID, planFile)}
	c.rec = record{
		ID: cfg.ID, SandboxID: cfg.SandboxID, State: Created, CreatedAt: now(), Boot: bootID(),
		Cgroup: path, Resources: cfg.Spec.Linux.Resources, SharedPID: child.Flags&unix.CLONE_NEWPID == 0,
	}
	if c.group, err = cgroup.Open(path, c.rec.Resources, r.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.discard(context.WithoutCancel(ctx), c))
		}
	}()
	if err := r.directories(cfg, p, child, mappingsOf(cfg.Spec, sb)); err != nil {
		return nil, err
	}
	c.rec.Child = *child
	c.rec.Child.Cgroup, _ = c.group.Join() // as it will be, most likely
	if err := c.save(); err != nil {       // before the cgroup, which nobody would find otherwise
		return nil, err
	}
	saved := c.rec
	if err := c.group.Create(); err != nil {
		return nil, err
	}
	c.rec.Child.Cgroup, p.CgroupProcs = c.group.Join()
	if p.Process.OOMScoreAdj == nil {
		p.Process.OOMScoreAdj = new(int) // not the keeper's, which is as low as can be
	}
	release, err := r.pinUsers(cfg.ID, cfg.Spec, sb, p)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := r.bundle(c, cfg, sb, p); err != nil {
		return nil, err
	}
	if cfg.Restore != nil {
		if err := c.restoring(cfg, sb, p); err != nil {
			return nil, err
		}
	}
	if !reflect.DeepEqual(c.rec, saved) { // hooks, another runtime, a hierarchy without the group
		if err := c.save(); err != nil {
			return nil, err
		}
	}
	if err := r.launch(ctx, c, p); err != nil {
		return c, cfg.Restore.explain(err)
	}
	if cfg.Restore == nil {
		return c, nil
	}
	return c, r.judge(c, p, cfg)
}

// launch writes the plan and has the keeper fork. The process's number is written down
// once it is started: until then the keeper knows it, and it ends with the keeper.
func (r *Runtime) launch(ctx context.Context, c *container, p *plan.Plan) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := atomicfile.WriteVolatile(c.filePlan, b, 0o600); err != nil {
		return err
	}
	f, err := os.Open(c.filePlan)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := r.keeper.call(ctx, plan.Request{Op: plan.Create, ID: c.rec.ID, Child: &c.rec.Child}, int(f.Fd()))
	if err != nil {
		return err
	}
	c.rec.PID, c.rec.Ticks = a.PID, a.Started
	return nil
}

// cgroupPath is where the container's cgroup goes.
func (r *Runtime) cgroupPath(cfg *CreateConfig, sb *Sandbox) (string, error) {
	path := cfg.Spec.Linux.CgroupsPath
	switch {
	case path == "" && sb != nil && sb.Config.CgroupParent != "":
		return filepath.Join(sb.Config.CgroupParent, cfg.ID), nil
	case path == "":
		return filepath.Join(r.cfg.Cgroup, cfg.ID), nil
	case strings.Count(path, ":") == 2: // slice:prefix:name
		return "", fmt.Errorf("cgroupsPath %q: cgroups are not made through systemd", path)
	case !filepath.IsAbs(path): // config-linux.md, "Cgroups Path": relative to a place of the runtime's
		return filepath.Join(r.cfg.Cgroup, filepath.Join("/", path)), nil
	}
	return filepath.Clean(path), nil
}

// directories makes the container's directories and FIFOs. The FIFOs belong to
// its user, so that a program may open /dev/stdout.
func (r *Runtime) directories(cfg *CreateConfig, p *plan.Plan, child *plan.Child, maps *IDMappings) error {
	if err := os.MkdirAll(r.dir(cfg.ID), 0o700); err != nil {
		return err
	}
	run := r.runDir(cfg.ID)
	if err := os.MkdirAll(filepath.Join(run, "rootfs"), 0o700); err != nil {
		return err
	}
	child.ExitFile = r.file(cfg.ID, exitFile)
	if cfg.TTY {
		return nil
	}
	want := map[string]*string{"stdout": &child.Stdout, "stderr": &child.Stderr}
	if cfg.Stdin {
		want["stdin"] = &child.Stdin
	}
	for name, field := range want {
		path := filepath.Join(run, name)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return &os.PathError{Op: "mkfifo", Path: path, Err: err}
		}
		uid, gid := p.Process.UID, p.Process.GID
		if maps != nil {
			uid, gid = hostID(maps.UID, uid), hostID(maps.GID, gid)
		}
		if err := os.Chown(path, uid, gid); err != nil {
			return err
		}
		if label := r.fileLabel(cfg.Spec); label != "" {
			if err := selinux.LabelFile(path, label); err != nil {
				return err
			}
		}
		*field = path
	}
	return nil
}

// hostID maps an id of the container to the host's.
func hostID(maps []specs.LinuxIDMapping, id int) int {
	for _, m := range maps {
		if uint32(id) >= m.ContainerID && uint32(id) < m.ContainerID+m.Size {
			return int(m.HostID) + id - int(m.ContainerID)
		}
	}
	return id
}

// Start lets a created container run its program. When that cannot be executed the
// error says why, and the container has exited with code 128.
func (r *Runtime) Start(ctx context.Context, id string) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	if s := c.status(); s.State != Created {
		return fmt.Errorf("start container %q: is %s: %w", id, s.State, ErrState)
	}
	if c.rec.Unjudged {
		return fmt.Errorf("start container %q: its checkpoint was never judged: %w", id, ErrState)
	}
	if c.rec.Runtime == "" { // another runtime throttles itself; what it could not create has no cgroup any more
		if err := c.group.Throttle(); err != nil {
			return fmt.Errorf("start container %q: %w", id, err)
		}
	}
	judge := c.judge()
	a, err := r.keeper.call(ctx, plan.Request{Op: plan.Start, ID: id})
	if err != nil {
		return fmt.Errorf("start container %q: %w", id, c.failed(ctx, a, err, judge))
	}
	err = c.started()
	judge()
	if err != nil {
		return err
	}
	c.hooks(ctx, specs.StateRunning)
	return nil
}

// judge has exits wait until what it returns is called, once.
func (c *container) judge() (done func()) {
	judged := make(chan struct{})
	c.mu.Lock()
	c.judged = judged
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		c.judged = nil
		c.mu.Unlock()
		close(judged)
	}
}

func (c *container) started() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rec.StartedAt = now()
	if c.rec.State == Exited {
		c.rec.StartedAt = earlier(c.rec.StartedAt, c.rec.FinishedAt)
		return c.save()
	}
	c.rec.State = Running
	return c.save()
}

// failed notes why Start failed. When the program could not be executed it waits
// for the exit, so that the caller finds the container exited.
func (c *container) failed(ctx context.Context, a plan.Answer, err error, judge func()) error {
	c.mu.Lock()
	c.rec.Error = err.Error()
	c.mu.Unlock()
	judge()
	if a.Code != 0 {
		select {
		case <-c.ended:
		case <-ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.State == Exited && c.rec.ExitCode != startFailed { // it had ended before it was to start
		c.rec.ExitCode = startFailed
		return errors.Join(err, c.save())
	}
	return err
}

// planFileFor puts a plan into an unnamed file.
func planFileFor(p *plan.Plan) (*os.File, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "plan")
	if _, err := f.Write(b); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
