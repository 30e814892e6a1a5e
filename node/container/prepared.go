package container

import (
	"os"
	"reflect"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// A probe runs the same command every few seconds. What an exec has found out and made
// is kept for the next one: which process the container's first is, and the list of
// calls. What may have changed meanwhile, the container's files, is looked at again.

// maxPrepared bounds how many containers have something prepared: each has two
// descriptors of ours, and 24 kB of memory.
const maxPrepared = 1024

// prepared is what an exec has left in its container. The container's mutex guards it.
type prepared struct {
	target int // the pidfd of the first process, or -1
	// list is the sealed executable that does what plan says, with what was found in
	// the container's files; nil for none.
	list *os.File
	plan *plan.Plan
	look found
	// asked is what plan was made of.
	asked *specs.Process
}

// found is what an exec looks up in the container's files.
type found struct{ program, home string }

// target is a pidfd of the first process, for the caller to close.
func (c *container) target() (int, error) {
	c.mu.Lock()
	kept := -1
	if c.ready != nil && c.ready.target >= 0 {
		kept = dup(c.ready.target)
	}
	c.mu.Unlock()
	if kept >= 0 {
		return kept, nil
	}
	fd, err := c.pidfd()
	if err != nil {
		return -1, err
	}
	c.prepare(func(p *prepared) { p.target = dup(fd) })
	return fd, nil
}

// preparedPlan is the plan that a brief exec before has made of the same process, or nil:
// whatever else it is made of stays what it is while the container lives.
func (c *container) preparedPlan(asked *specs.Process) *plan.Plan {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.ready; r != nil && r.list != nil && reflect.DeepEqual(r.asked, asked) {
		return r.plan
	}
	return nil
}

// preparedList is the list that an exec before has made of the same, or -1.
func (c *container) preparedList(p *plan.Plan, look found) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.ready
	if r == nil || r.list == nil || r.look != look || !reflect.DeepEqual(r.plan, p) {
		return -1
	}
	return dup(int(r.list.Fd()))
}

// keepList keeps the executable of a list, and gives a descriptor of it for the caller
// to close; -1 when there is none to be had. Nobody changes p any more, nor what was
// asked for.
func (c *container) keepList(list *os.File, p *plan.Plan, look found, asked *specs.Process) int {
	fd := dup(int(list.Fd()))
	if !c.prepare(func(r *prepared) {
		if r.list != nil {
			r.list.Close()
		}
		r.list, r.plan, r.look, r.asked = list, p, look, asked
	}) {
		list.Close()
	}
	return fd
}

// prepare keeps something while the container lives, if there is a place for it.
func (c *container) prepare(keep func(*prepared)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.State == Exited {
		return false
	}
	if c.ready == nil {
		if c.r.prepared.Add(1) > maxPrepared {
			c.r.prepared.Add(-1)
			return false
		}
		c.ready = &prepared{target: -1}
	}
	keep(c.ready)
	return true
}

// unprepare lets go of what execs have left; the caller holds the mutex.
func (c *container) unprepare() {
	r := c.ready
	if r == nil {
		return
	}
	c.ready = nil
	c.r.prepared.Add(-1)
	if r.target >= 0 {
		unix.Close(r.target)
	}
	if r.list != nil {
		r.list.Close()
	}
}

// dup is another descriptor of the same, or -1.
func dup(fd int) int {
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return other
}
