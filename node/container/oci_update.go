package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// running opens the cgroup of a container that is in one of the states.
func (o *OCI) running(verb, id string, in ...specs.ContainerState) (*cgroup.Group, error) {
	rec, err := o.load(id)
	if err != nil {
		return nil, err
	}
	status := o.state(rec).Status
	for _, s := range in {
		if s == status {
			return cgroup.Open(rec.Cgroup, nil, o.runtime().log)
		}
	}
	return nil, fmt.Errorf("%s container %q: is %s: %w", verb, id, status, ErrState)
}

// Pause is `pause`: every process of the container stops until Resume.
func (o *OCI) Pause(id string) error {
	g, err := o.running("pause", id, specs.StateRunning, specs.StateCreated)
	if err != nil {
		return err
	}
	return g.Freeze(true)
}

// Resume is `resume`.
func (o *OCI) Resume(id string) error {
	g, err := o.running("resume", id, Paused)
	if err != nil {
		return err
	}
	return g.Freeze(false)
}

// Update is `update`: the limits in r that are set replace the container's.
func (o *OCI) Update(id string, r *specs.LinuxResources) error {
	g, err := o.running("update", id, specs.StateRunning, specs.StateCreated, Paused)
	if err != nil {
		return err
	}
	return g.Update(r)
}

// Processes is `ps`: the host's pids of everything in the container.
func (o *OCI) Processes(id string) ([]int, error) {
	// Of one that has stopped there may be some without a pid namespace of its own.
	g, err := o.running("list processes of", id, specs.StateRunning, specs.StateCreated, Paused, specs.StateStopped)
	if err != nil {
		return nil, err
	}
	return g.Pids()
}

// Usage is `events --stats`.
func (o *OCI) Usage(id string) (cgroup.Usage, error) {
	g, err := o.running("measure", id, specs.StateRunning, specs.StateCreated, Paused)
	if err != nil {
		return cgroup.Usage{}, err
	}
	return g.Usage()
}

// List is `list`: the state of every container, in the order of their names.
func (o *OCI) List() ([]specs.State, error) {
	entries, err := os.ReadDir(o.Root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []specs.State
	for _, e := range entries {
		s, err := o.State(e.Name())
		if errors.Is(err, ErrNotFound) { // half made, or just removed
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// Wait waits for a container that this very process has created, and gives its
// exit code.
func (o *OCI) Wait(id string) (int, error) {
	rec, err := o.loadMade(id)
	if err != nil {
		return -1, err
	}
	code, err := waitChild(rec.PID)
	if err != nil {
		return -1, fmt.Errorf("wait for container %q: %w", id, err)
	}
	return code, nil
}

// MadePID is the first process of the container that this one has made last, 0 when
// it has made none. The number is that process's own until Wait returns.
func (o *OCI) MadePID() int {
	if o.made == nil {
		return 0
	}
	return o.made.rec.PID
}

// Run is `run` without the wait: Create and Start in one.
func (o *OCI) Run(ctx context.Context, id string, opt OCICreate) error {
	opt.start = true
	return o.Create(ctx, id, opt)
}
