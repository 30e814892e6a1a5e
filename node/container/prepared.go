package container

import (
	"os"
	"reflect"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// A probe runs the same command every few seconds. What an exec has found out and made
// is kept for the next one: which process the container's first is, and the list of
// calls. What may have changed meanwhile, the container's files, is looked at again.

// maxPrepared bounds how many containers have something prepared: each has 24 kB of
// memory, two descriptors of ours, and one for each of its cgroups, of which there are
// perCgroup on most machines.
const (
	maxPrepared = 1024
	perCgroup   = 9
)

// preparable is how many containers may have something prepared when this process may have
// so many files open: a quarter of these goes there.
func preparable(files uint64) int32 {
	return int32(min(maxPrepared, files/4/(2+perCgroup)))
}

// openFiles is how many files this process may have open.
func openFiles() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return limit.Cur
}

// prepared is what an exec has left in its container. The container's mutex guards it.
type prepared struct {
	target int // the pidfd of the first process, or -1
	// list is the sealed executable that does what plan says, with what was found in
	// the container's files; nil for none.
	list *os.File
	// groups are the files that a process of the container is moved with into its cgroups.
	groups []int
	plan   *plan.Plan
	look   found
	// asked is what plan was made of.
	asked *specs.Process
}

// found is what an exec looks up in the container's files, and how many of the files of
// its cgroups are open.
type found struct {
	program, home string
	groups        int
}

// groupFiles are descriptors of the files of the container's cgroups for the caller to
// close, all of them or none: to open them takes longer than to write to them.
func (c *container) groupFiles(paths []string) []int {
	if len(paths) > plan.MaxGroups {
		return nil
	}
	c.mu.Lock()
	var out []int
	if c.ready != nil {
		for _, fd := range c.ready.groups {
			out = append(out, dup(fd))
		}
	}
	c.mu.Unlock()
	if out != nil {
		return all(out)
	}
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			fd = -1
		}
		out = append(out, fd)
	}
	if out = all(out); out == nil {
		return nil
	}
	var kept []int
	for _, fd := range out {
		kept = append(kept, dup(fd))
	}
	if kept = all(kept); !c.prepare(func(r *prepared) { r.groups, kept = kept, r.groups }) || kept != nil {
		closeFDs(kept) // somebody was faster, or it has ended
	}
	return out
}

// all are descriptors if every one is; else those that are are closed.
func all(fds []int) []int {
	if slices.Contains(fds, -1) {
		closeFDs(fds)
		return nil
	}
	return fds
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

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
		if c.r.prepared.Add(1) > preparable(openFiles()) {
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
	closeFDs(r.groups)
}

// dup is another descriptor of the same, or -1.
func dup(fd int) int {
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return other
}
