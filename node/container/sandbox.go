package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// shmSize is how big a sandbox's shared memory may grow, as everywhere.
const shmSize = "65536k"

// IDMappings are the mappings of a user namespace.
type IDMappings struct {
	UID, GID []specs.LinuxIDMapping
}

// SandboxConfig describes the namespaces that the containers of a group share.
type SandboxConfig struct {
	ID, Hostname string
	// HostNetwork, HostIPC and HostPID leave out the namespace: containers are in
	// the host's.
	HostNetwork, HostIPC, HostPID bool
	// SharePID gives the sandbox a pid namespace with a tiny pid 1.
	SharePID bool
	// UserNS asks for a user namespace.
	UserNS *IDMappings
	// Sysctls are set in the new network and IPC namespaces.
	Sysctls map[string]string
	// CgroupParent is where the sandbox's containers go when they name no cgroup;
	// empty means Config.Cgroup. It goes with the last sandbox that names it.
	CgroupParent string
	// Resources limit CgroupParent, and so what is in it together; nil sets none.
	Resources *specs.LinuxResources `json:"-"`
}

// Sandbox is a set of namespaces that exist without a process: they are pinned
// by bind mounts below the run directory. Containers come and go in it.
type Sandbox struct {
	Config SandboxConfig
	dir    string
	// pausePID is the pid 1 of a shared pid namespace, 0 without.
	PausePID   int
	PauseTicks uint64 // tells it from another process with its number

	// holdsParent says that it counts among the users of its CgroupParent.
	holdsParent bool
}

const sandboxFile = "sandbox.json"

// NetNS is the path of the network namespace; empty with HostNetwork.
func (s *Sandbox) NetNS() string {
	if s.Config.HostNetwork {
		return ""
	}
	return filepath.Join(s.dir, "net")
}

// Shm is the directory to mount on /dev/shm in every container of the sandbox.
func (s *Sandbox) Shm() string {
	if s.Config.HostIPC {
		return "/dev/shm"
	}
	return filepath.Join(s.dir, "shm")
}

// pauseSuffix makes the keeper's name of a sandbox's pid 1.
const pauseSuffix = ".pause"

func (s *Sandbox) pauseID() string { return s.Config.ID + pauseSuffix }

// pinned are the namespaces that this sandbox has pinned, by file name.
func (s *Sandbox) pinned() map[string]uintptr {
	out := map[string]uintptr{}
	if !s.Config.HostNetwork {
		out["net"] = unix.CLONE_NEWNET
		out["uts"] = unix.CLONE_NEWUTS // a host-network pod has the host's name
	}
	if !s.Config.HostIPC {
		out["ipc"] = unix.CLONE_NEWIPC
	}
	if s.Config.UserNS != nil {
		out[userPin] = unix.CLONE_NEWUSER
	}
	return out
}

// impose puts the sandbox's namespaces into what a container asked for.
func (s *Sandbox) impose(want map[uintptr]string) {
	for _, flag := range []uintptr{unix.CLONE_NEWNET, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC} {
		delete(want, flag)
	}
	for name, flag := range s.pinned() {
		want[flag] = filepath.Join(s.dir, name)
	}
	if s.Config.UserNS == nil {
		delete(want, unix.CLONE_NEWUSER)
	}
	switch {
	case want[unix.CLONE_NEWPID] != "": // a target container's
	case s.Config.HostPID:
		delete(want, unix.CLONE_NEWPID)
	case s.Config.SharePID:
		want[unix.CLONE_NEWPID] = filepath.Join(s.dir, "pid")
	default:
		want[unix.CLONE_NEWPID] = ""
	}
}

// CreateSandbox makes and pins the namespaces. On an error nothing is left.
func (r *Runtime) CreateSandbox(ctx context.Context, cfg SandboxConfig) (*Sandbox, error) {
	if cfg.UserNS != nil && (cfg.HostNetwork || cfg.HostIPC || cfg.HostPID) {
		return nil, fmt.Errorf("sandbox %q: a user namespace does not go with a namespace of the host", cfg.ID)
	}
	free, err := r.reserve(cfg.ID)
	if err != nil {
		return nil, err
	}
	defer free()
	s := &Sandbox{Config: cfg, dir: filepath.Join(r.sandboxRoot(), cfg.ID)}
	if err := r.makeSandbox(ctx, s); err != nil {
		err = errors.Join(err, r.dismantle(context.WithoutCancel(ctx), s))
		return nil, fmt.Errorf("sandbox %q: %w", cfg.ID, err)
	}
	r.mu.Lock()
	r.sandboxes[cfg.ID] = s
	r.mu.Unlock()
	return s, nil
}

func (r *Runtime) makeSandbox(ctx context.Context, s *Sandbox) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := r.saveSandbox(s); err != nil {
		return err
	}
	if err := r.holdParent(s); err != nil {
		return err
	}
	if err := r.pinNamespaces(s); err != nil {
		return err
	}
	if !s.Config.HostIPC {
		if err := os.MkdirAll(s.Shm(), 0o755); err != nil {
			return err
		}
		if err := unix.Mount("shm", s.Shm(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size="+shmSize+s.shmOwner()); err != nil {
			return fmt.Errorf("mount shared memory: %w", err)
		}
	}
	if !s.Config.SharePID || s.Config.HostPID {
		return nil
	}
	if err := r.startPause(ctx, s); err != nil {
		return err
	}
	return r.saveSandbox(s)
}

func (s *Sandbox) shmOwner() string {
	if m := s.Config.UserNS; m != nil {
		return fmt.Sprintf(",uid=%d,gid=%d", hostID(m.UID, 0), hostID(m.GID, 0))
	}
	return ""
}

// saveSandbox need not survive a power cut: the namespaces do not either.
func (r *Runtime) saveSandbox(s *Sandbox) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(filepath.Join(s.dir, sandboxFile), b, 0o600)
}

// startPause starts the pid 1 of a shared pid namespace and pins the namespace.
func (r *Runtime) startPause(ctx context.Context, s *Sandbox) error {
	p := &plan.Plan{Version: plan.Version, Kind: plan.Pause}
	for name, flag := range s.pinned() {
		if name == userPin {
			continue // pid 1 only reaps; it needs no user of the pod
		}
		p.Joins = append(p.Joins, plan.Join{Path: filepath.Join(s.dir, name), Flag: flag})
	}
	child := &plan.Child{Flags: unix.CLONE_NEWPID}
	f, err := planFileFor(p)
	if err != nil {
		return err
	}
	defer f.Close()
	id := s.pauseID()
	a, err := r.keeper.call(ctx, plan.Request{Op: plan.Create, ID: id, Child: child}, int(f.Fd()))
	if err != nil {
		return fmt.Errorf("start pid 1: %w", err)
	}
	s.PausePID, s.PauseTicks = a.PID, a.Started
	if _, err := r.keeper.call(ctx, plan.Request{Op: plan.Start, ID: id}); err != nil {
		return fmt.Errorf("start pid 1: %w", err)
	}
	return pinFile(fmt.Sprintf("/proc/%d/ns/pid", a.PID), filepath.Join(s.dir, "pid"))
}

// RemoveSandbox takes a sandbox apart. Its containers should be gone already; one
// that is not keeps its namespaces alive. A sandbox that is not there is no error.
func (r *Runtime) RemoveSandbox(ctx context.Context, id string) error {
	r.mu.Lock()
	s := r.sandboxes[id]
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	if err := r.dismantle(ctx, s); err != nil {
		return fmt.Errorf("sandbox %q: %w", id, err)
	}
	r.mu.Lock()
	delete(r.sandboxes, id)
	r.mu.Unlock()
	return nil
}

// dismantle undoes makeSandbox, as far as it got.
func (r *Runtime) dismantle(ctx context.Context, s *Sandbox) error {
	if s.PausePID != 0 {
		if startTicks(s.PausePID) == s.PauseTicks {
			_ = unix.Kill(s.PausePID, unix.SIGKILL) // it may have ended meanwhile
		}
		if r.keeper != nil {
			if _, err := r.keeper.call(ctx, plan.Request{Op: plan.Forget, ID: s.pauseID()}); err != nil {
				r.log.Debug("keeper did not know the pid 1 of a sandbox", "id", s.Config.ID, "err", err)
			}
		}
	}
	for _, name := range []string{"net", "uts", "ipc", "pid", userPin, "shm"} {
		err := unix.Unmount(filepath.Join(s.dir, name), unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unpin %s: %w", name, err)
		}
	}
	r.dropParent(s)
	return os.RemoveAll(s.dir)
}

// Sandboxes are the ids of all sandboxes, in order.
func (r *Runtime) Sandboxes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.sandboxes))
}

// Sandbox returns a sandbox by id.
func (r *Runtime) Sandbox(id string) (*Sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil, fmt.Errorf("sandbox %q: %w", id, ErrNotFound)
	}
	return s, nil
}

// loadSandboxes finds the sandboxes of an earlier Runtime. One whose pins are
// gone, or were never finished, is taken apart, when it is known what the whole
// ones need.
func (r *Runtime) loadSandboxes() error {
	entries, err := os.ReadDir(r.sandboxRoot())
	if err != nil {
		return err
	}
	var broken []*Sandbox
	for _, e := range entries {
		s := &Sandbox{}
		dir := filepath.Join(r.sandboxRoot(), e.Name())
		err := atomicfile.ReadJSON(filepath.Join(dir, sandboxFile), s)
		s.dir = dir
		if err == nil && s.Config.ID == e.Name() && s.whole() {
			r.sandboxes[s.Config.ID] = s
			r.countParent(s)
			continue
		}
		r.log.Warn("sandbox is not whole and is taken apart", "id", e.Name(), "err", err)
		s.Config.ID = e.Name()
		broken = append(broken, s)
	}
	for _, s := range broken {
		r.countParent(s)
		if err := r.dismantle(context.Background(), s); err != nil {
			r.log.Error("sandbox not taken apart", "id", s.Config.ID, "err", err)
		}
	}
	return nil
}

// whole reports whether every pin still holds a namespace.
func (s *Sandbox) whole() bool {
	for name := range s.pinned() {
		var st unix.Statfs_t
		if err := unix.Statfs(filepath.Join(s.dir, name), &st); err != nil || st.Type != unix.NSFS_MAGIC {
			return false
		}
	}
	return true
}

// onLostThread runs f on an operating system thread that ends with it. That is never the
// first of the process, which does not end, and would keep what it has entered for good.
func onLostThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onLostThread(f) // while this one is taken
			return
		}
		done <- f()
	}()
	return <-done
}
