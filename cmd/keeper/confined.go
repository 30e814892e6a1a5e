package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// runConfined runs a hook as what the container's program will be: in its user namespace,
// as its user, with its capabilities and under its seccomp filter. The little program of
// calls.go takes these steps and executes the hook. Where there is none for this
// architecture, nor are there user namespaces, the hook is run as it is.
func (s *stager) runConfined(h *plan.Hook) error {
	code := callLoop(control)
	if code == nil {
		return runHook(h, s.state, "")
	}
	c, err := s.hookCalls(h)
	if err != nil {
		return err
	}
	fd, err := memfd("sampan-hook", c.elf(code))
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return feedHook(h, s.state, func(in int) (int, error) { return s.spawnConfined(fd, in) })
}

// hookCalls is what the little program does for a hook.
func (s *stager) hookCalls(h *plan.Hook) (*calls, error) {
	const newListener = 8 // SECCOMP_FILTER_FLAG_NEW_LISTENER: there is one listener, the program's
	p := *s.p
	p.Kind = plan.Exec // which has no mount namespace of its own: what a hook mounts would be lost
	p.Process.Args, p.Process.Env, p.Process.Preserved, p.Process.Labels = argvOf(h), h.Env, 0, nil
	p.Process.SeccompFlags &^= newListener
	as := *s
	as.p, as.path, as.agent, as.proc = &p, h.Path, -1, -1
	c, err := as.lastCalls()
	if err != nil {
		return nil, err
	}
	return c, c.goTo(p.Process.Cwd)
}

// goTo has the calls begin in a directory of the container, and not in that of
// spawnConfined: in the root if the user cannot be there.
func (c *calls) goTo(cwd string) error {
	after := c.list
	c.list = nil
	for i, dir := range []string{"/", cwd} {
		if dir == "" {
			continue
		}
		if err := c.add("go to "+dir, 128, syscall.SYS_CHDIR, c.str(dir)); err != nil {
			return err
		}
		if i > 0 {
			c.list[len(c.list)-1].Flags = mayFail
		}
	}
	c.list = append(c.list, after...)
	if len(c.list) >= maxCalls {
		return fmt.Errorf("more than %d system calls", maxCalls)
	}
	return nil
}

// spawnConfined executes the file behind a descriptor, with what it needs of ours at the
// numbers that they have. It is found through a procfs of our own, from which it begins:
// the container's could lead anywhere.
func (s *stager) spawnConfined(fd, in int) (int, error) {
	needed := []int{control, s.user, s.time}
	files := make([]uintptr, max(2, slices.Max(needed))+1)
	for i := range files {
		files[i] = ^uintptr(0)
	}
	files[0], files[1], files[2] = uintptr(in), 2, 2
	for _, n := range needed {
		if n >= 0 {
			files[n] = uintptr(n)
		}
	}
	// While descriptors are moved, some and the fork's pipe are right above the highest.
	highest := max(len(files), in)
	self, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, uintptr(highest+len(files)+2))
	if e != 0 {
		return 0, os.NewSyscallError("fcntl", e)
	}
	defer syscall.Close(int(self))
	proc, err := s.procfs()
	if err != nil {
		return 0, err
	}
	if err := syscall.Fchdir(proc); err != nil {
		return 0, err
	}
	return spawn("self/fd/"+strconv.Itoa(int(self)), []string{"sampan-hook"}, &syscall.ProcAttr{Files: files})
}
