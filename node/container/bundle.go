package container

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// bundle gives a container what hooks and other runtimes look for: a directory with
// a config.json and the root. Most containers have neither, and no bundle.
func (r *Runtime) bundle(c *container, cfg *CreateConfig, sb *Sandbox, p *plan.Plan) error {
	hooks := cfg.Spec.Hooks
	if hooks == nil && cfg.Runtime == "" {
		return nil
	}
	dir := r.runDir(cfg.ID)
	spec := *cfg.Spec
	spec.Root = &specs.Root{Path: "rootfs", Readonly: p.Root.Readonly}
	if cfg.Runtime != "" {
		if err := c.foreign(cfg, sb, p, &spec); err != nil {
			return fmt.Errorf("runtime %q: %w", cfg.Runtime, err)
		}
	} else if err := c.planned(hooks, dir, p); err != nil {
		return err
	}
	b, err := json.Marshal(&spec)
	if err != nil {
		return fmt.Errorf("encode config.json: %w", err)
	}
	return atomicfile.WriteVolatile(filepath.Join(dir, "config.json"), b, 0o600)
}

// planned puts the hooks where they are run from: into the plan those of the
// container's namespaces, into the child those of the host, into the record the
// late ones.
func (c *container) planned(hooks *specs.Hooks, dir string, p *plan.Plan) error {
	state := c.state(specs.StateCreating)
	state.Bundle = dir
	b, err := json.Marshal(hookState{state.Version, state.ID, state.Status, state.Bundle})
	if err != nil {
		return err
	}
	p.Hooks = planHooks(hooks)
	early := slices.Concat(hooks.Prestart, hooks.CreateRuntime) //nolint:staticcheck // prestart is deprecated, and used
	c.rec.Child.CreatorHooks, c.rec.Child.HookState = plannedHooks(early), string(b)
	if len(hooks.Poststart)+len(hooks.Poststop) > 0 {
		c.rec.Hooks = &specs.Hooks{Poststart: hooks.Poststart, Poststop: hooks.Poststop}
	}
	return c.save()
}

// hookState is a state without the pid, which only the keeper knows.
type hookState struct {
	Version string               `json:"ociVersion"`
	ID      string               `json:"id"`
	Status  specs.ContainerState `json:"status"`
	Bundle  string               `json:"bundle"`
}

func (c *container) state(status specs.ContainerState) specs.State {
	return specs.State{Version: specs.Version, ID: c.rec.ID, Status: status, Pid: c.rec.PID, Bundle: c.r.runDir(c.rec.ID)}
}

// hooks runs what belongs after the start or after the end. A hook that fails there
// changes nothing any more, and is told to the log.
func (c *container) hooks(ctx context.Context, status specs.ContainerState) {
	c.mu.Lock()
	all, state := c.rec.Hooks, c.state(status)
	c.mu.Unlock()
	if all == nil {
		return
	}
	list := all.Poststart
	if status == specs.StateStopped {
		list, state.Pid = all.Poststop, 0
	}
	b, err := json.Marshal(state)
	for _, h := range list {
		if err == nil {
			err = runHook(ctx, h, state.Bundle, b)
		}
		if err != nil {
			c.r.log.Warn("hook failed", "id", state.ID, "hook", h.Path, "err", err)
		}
		err = nil
	}
}

// foreign makes the plan one for the parent of another runtime's container, and the
// specification one that says where the sandbox's namespaces are.
func (c *container) foreign(cfg *CreateConfig, sb *Sandbox, p *plan.Plan, spec *specs.Spec) error {
	if !filepath.IsAbs(cfg.Runtime) {
		return errors.New("must be an absolute path")
	}
	if mappingsOf(cfg.Spec, sb) != nil {
		return errors.New("user namespaces are not supported with another runtime")
	}
	if err := unix.Access(cfg.Runtime, unix.X_OK); err != nil {
		return &os.PathError{Op: "access", Path: cfg.Runtime, Err: err}
	}
	if err := c.impose(sb, spec); err != nil {
		return err
	}
	dir := c.r.runDir(c.rec.ID)
	spec.Version = foreignVersion
	p.Kind, p.Hooks = plan.Foreign, nil
	p.Foreign = &plan.ForeignRuntime{Path: cfg.Runtime, Bundle: dir, ID: c.rec.ID}
	p.Root.Mountpoint = filepath.Join(dir, "rootfs")
	// The parent is not in the container's cgroup, nor in any namespace of its.
	c.rec.Child.Flags, c.rec.Child.PIDNS, c.rec.Child.Cgroup = unix.CLONE_NEWNS, "", ""
	c.rec.Runtime = cfg.Runtime
	process := *spec.Process
	process.Terminal = cfg.TTY
	linux := *spec.Linux
	linux.CgroupsPath = c.rec.Cgroup
	var err error
	if linux.Resources, err = cgroup.Possible(linux.Resources); err != nil {
		return err
	}
	spec.Process, spec.Linux = &process, &linux
	return c.save()
}

// foreignVersion is the oldest version of the specification that has all that is
// asked of other runtimes: they refuse those younger than themselves.
const foreignVersion = "1.0.2"

// foreignDelete has another runtime give back what it has of a container. What it
// leaves is removed as that of any container.
func (c *container) foreignDelete(ctx context.Context) {
	if c.rec.Runtime == "" {
		return
	}
	state := filepath.Join(c.r.runDir(c.rec.ID), "state")
	out, err := exec.CommandContext(ctx, c.rec.Runtime, "--root", state, "delete", "--force", c.rec.ID).CombinedOutput()
	if err != nil {
		c.r.log.Warn("runtime does not delete its container", "id", c.rec.ID, "runtime", c.rec.Runtime, "err", err, "output", string(out))
	}
}

// impose writes the sandbox's namespaces into a specification.
func (c *container) impose(sb *Sandbox, spec *specs.Spec) error {
	if sb == nil {
		return nil
	}
	want := map[uintptr]string{unix.CLONE_NEWNS: ""}
	for _, ns := range spec.Linux.Namespaces {
		flag, ok := namespaceFlags[ns.Type]
		if !ok {
			return fmt.Errorf("namespace %q is not supported", ns.Type)
		}
		want[flag] = ns.Path
	}
	sb.impose(want)
	linux := *spec.Linux
	linux.Namespaces = nil
	for name, flag := range namespaceFlags {
		if path, ok := want[flag]; ok {
			linux.Namespaces = append(linux.Namespaces, specs.LinuxNamespace{Type: name, Path: path})
		}
	}
	slices.SortFunc(linux.Namespaces, func(a, b specs.LinuxNamespace) int { return cmp.Compare(a.Type, b.Type) })
	spec.Linux, spec.Hostname, spec.Domainname = &linux, "", ""
	return nil
}
