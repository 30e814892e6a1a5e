package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/cgroup"
	"github.com/sampan-dev/sampan/node/container/plan"
)

// removeWait bounds how long Remove waits for the kernel to let go of a cgroup.
const removeWait = 10 * time.Second

// Signal sends sig to the container's first process, or with all to every process
// in its cgroup. A container that has ended is no error for SIGKILL.
func (r *Runtime) Signal(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	if all {
		if err := c.group.Signal(sig); err != nil {
			return fmt.Errorf("signal container %q: %w", id, err)
		}
		return nil
	}
	fd, err := c.pidfd()
	if errors.Is(err, ErrState) && sig == syscall.SIGKILL {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal container %q: %w", id, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal container %q: %w", id, err)
	}
	if sig == syscall.SIGKILL {
		_ = c.group.Freeze(false) // of processes that somebody has made stand still, v1 takes no life until they go on
	}
	return nil
}

// pidfd opens the first process, and makes sure that it is still that one.
func (c *container) pidfd() (int, error) {
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	if rec.State == Exited || rec.PID == 0 {
		return -1, fmt.Errorf("has exited: %w", ErrState)
	}
	fd, err := unix.PidfdOpen(rec.PID, 0)
	if err != nil {
		return -1, fmt.Errorf("has exited (%w): %w", err, ErrState)
	}
	if !rec.alive() {
		unix.Close(fd)
		return -1, fmt.Errorf("has exited: %w", ErrState)
	}
	return fd, nil
}

// Remove removes a container, killing it if it runs: its cgroup, its directories.
// Mounts die with its mount namespace. The log file stays. A container that is
// not there is no error.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	c, err := r.find(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.status().State != Exited {
		if err := r.Signal(ctx, id, syscall.SIGKILL, false); err != nil {
			return err
		}
		select {
		case <-c.ended:
		case <-ctx.Done():
			return fmt.Errorf("remove container %q: %w", id, context.Cause(ctx))
		}
	}
	if err := r.discard(ctx, c); err != nil {
		return fmt.Errorf("remove container %q: %w", id, err)
	}
	c.hooks(ctx, specs.StateStopped)
	r.mu.Lock()
	delete(r.containers, id)
	r.mu.Unlock()
	return nil
}

// discard removes everything of a container that has no first process any more.
func (r *Runtime) discard(ctx context.Context, c *container) error {
	id := c.rec.ID
	if _, err := r.keeper.call(ctx, plan.Request{Op: plan.Forget, ID: id}); err != nil {
		r.log.Debug("keeper did not know a container", "id", id, "err", err)
	}
	killed := c.group.Signal(syscall.SIGKILL) // what it has left behind
	ctx, cancel := context.WithTimeout(ctx, removeWait)
	defer cancel()
	c.foreignDelete(ctx)
	if err := c.group.Remove(ctx); err != nil {
		return errors.Join(err, killed)
	}
	return r.removeDirs(id)
}

// removeDirs removes a container's directories, that of the record last.
func (r *Runtime) removeDirs(id string) error {
	unpinMappings(r.runDir(id))
	_ = unix.Unmount(filepath.Join(r.runDir(id), userPin), unix.MNT_DETACH) // EINVAL and ENOENT say that there is none
	if err := os.RemoveAll(r.runDir(id)); err != nil {
		return err
	}
	return os.RemoveAll(r.dir(id))
}

// Update changes the limits that are set in res while the container runs.
func (r *Runtime) Update(ctx context.Context, id string, res *specs.LinuxResources) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	if err := c.group.Update(res); err != nil {
		return fmt.Errorf("update container %q: %w", id, err)
	}
	return nil
}

// Usage is what a container has used; see package cgroup.
type Usage = cgroup.Usage

// Device is what a Usage says of one disk.
type Device = cgroup.Device

// Pressure is what a Usage says of waits for a resource.
type Pressure = cgroup.Pressure

// Stats reads what the container's cgroup has counted.
func (r *Runtime) Stats(id string) (Usage, error) {
	c, err := r.find(id)
	if err != nil {
		return Usage{}, err
	}
	return c.group.Usage()
}

// GroupStats reads what the cgroup has counted that a sandbox's containers have
// together. Of a sandbox whose containers share theirs with others it is ErrNotFound.
func (r *Runtime) GroupStats(sandbox string) (Usage, error) {
	r.mu.Lock()
	s := r.sandboxes[sandbox]
	r.mu.Unlock()
	if s == nil || !r.ownParent(s) {
		return Usage{}, fmt.Errorf("cgroup of sandbox %q: %w", sandbox, ErrNotFound)
	}
	group, err := cgroup.Open(s.Config.CgroupParent, nil, r.log)
	if err != nil {
		return Usage{}, err
	}
	return group.Usage()
}

// Pids are the container's processes, as the host numbers them.
func (r *Runtime) Pids(id string) ([]int, error) {
	c, err := r.find(id)
	if err != nil {
		return nil, err
	}
	return c.group.Pids()
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
