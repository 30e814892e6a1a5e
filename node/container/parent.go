package container

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// ownParent reports whether the sandbox's cgroup is there for it, and for other
// sandboxes that name it too.
func (r *Runtime) ownParent(s *Sandbox) bool {
	parent := s.Config.CgroupParent
	return parent != "" && parent != "/" && parent != r.cfg.Cgroup
}

// holdParent makes the cgroup of a sandbox's containers with its limits.
func (r *Runtime) holdParent(s *Sandbox) error {
	if !r.ownParent(s) {
		return nil
	}
	defer r.parentBusy.Lock(s.Config.CgroupParent)()
	r.countParent(s)
	if s.Config.Resources == nil {
		return nil
	}
	return cgroup.Limit(s.Config.CgroupParent, s.Config.Resources, r.log)
}

func (r *Runtime) countParent(s *Sandbox) {
	if !r.ownParent(s) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.holdsParent = true
	r.parents[s.Config.CgroupParent]++
}

// dropParent removes the cgroup with the last sandbox that needs it. One with
// something in it stays: that is the kernel's safeguard.
func (r *Runtime) dropParent(s *Sandbox) {
	if !s.holdsParent {
		return
	}
	parent := s.Config.CgroupParent
	defer r.parentBusy.Lock(parent)()
	r.mu.Lock()
	s.holdsParent = false
	r.parents[parent]--
	last := r.parents[parent] == 0
	if last {
		delete(r.parents, parent)
	}
	r.mu.Unlock()
	if last {
		cgroup.RemoveEmpty(parent)
	}
}

// UpdateSandbox changes those limits of a sandbox's CgroupParent that are set in
// res. The kernel may refuse a limit below what a container in it has.
func (r *Runtime) UpdateSandbox(_ context.Context, id string, res *specs.LinuxResources) error {
	s, err := r.Sandbox(id)
	if err != nil {
		return err
	}
	if !r.ownParent(s) || res == nil {
		return nil
	}
	defer r.parentBusy.Lock(s.Config.CgroupParent)()
	if err := cgroup.Limit(s.Config.CgroupParent, res, r.log); err != nil {
		return fmt.Errorf("update sandbox %q: %w", id, err)
	}
	return nil
}
