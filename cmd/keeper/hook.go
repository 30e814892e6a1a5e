package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// hooks tells the creator that the namespaces and mounts are there, waits for the
// state that it sends, and runs the hooks that belong before the root is entered.
func (s *stager) hooks() error {
	h := s.p.Hooks
	if h == nil {
		return nil
	}
	if err := tell(plan.Report{Hooks: true, Notes: s.notes}); err != nil {
		return err
	}
	s.notes = nil
	b := make([]byte, plan.MaxMessage)
	n, err := syscall.Read(controlFD, b)
	for errors.Is(err, syscall.EINTR) {
		n, err = syscall.Read(controlFD, b)
	}
	if err != nil || n == 0 {
		return fmt.Errorf("the creator is gone: %w", errors.Join(err, syscall.EPIPE))
	}
	s.state = b[:n]
	return s.createHooks(h.CreateContainer)
}

// startHooks run in the container, just before its program, and with no more rights than
// that has: their programs are the image's. One that says nothing of its environment has
// the program's: the specification leaves it open, and that is what hooks have come to
// rely on.
func (s *stager) startHooks() error {
	if s.p.Hooks == nil || len(s.p.Hooks.StartContainer) == 0 {
		return nil
	}
	for i := range s.p.Hooks.StartContainer {
		h := &s.p.Hooks.StartContainer[i]
		if h.Env == nil {
			h.Env = s.p.Process.Env
		}
		if err := s.runConfined(h); err != nil {
			return hookFailed("startContainer", i, h.Path, err)
		}
	}
	_, err := s.chdir()
	return err
}

// hookFailed is in words that runc's callers know, of hooks that are counted from zero.
func hookFailed(moment string, i int, path string, err error) error {
	return fmt.Errorf("error running %s hook #%d: %q: %w", moment, i, path, err)
}

// createHooks run before the root is entered, and begin in it: that is where those look
// that have been written for runc.
func (s *stager) createHooks(hooks []plan.Hook) error {
	for i := range hooks {
		if err := runHook(&hooks[i], s.state, s.p.Root.Mountpoint); err != nil {
			return hookFailed("createContainer", i, hooks[i].Path, err)
		}
	}
	return nil
}

// runHook runs one program in a directory, or where we are.
func runHook(h *plan.Hook, state []byte, dir string) error {
	return feedHook(h, state, func(in int) (int, error) {
		return spawn(h.Path, argvOf(h), &syscall.ProcAttr{Dir: dir, Env: h.Env, Files: []uintptr{uintptr(in), 2, 2}})
	})
}

func argvOf(h *plan.Hook) []string {
	if len(h.Args) == 0 {
		return []string{h.Path}
	}
	return h.Args
}

// feedHook starts a program with the state on its stdin, and waits for it. What it prints
// goes where the container's errors go.
func feedHook(h *plan.Hook, state []byte, start func(in int) (pid int, err error)) error {
	var in [2]int
	if err := syscall.Pipe2(in[:], syscall.O_CLOEXEC); err != nil {
		return err
	}
	pid, err := start(in[0])
	syscall.Close(in[0])
	if err != nil {
		syscall.Close(in[1])
		return err
	}
	_, _ = syscall.Write(in[1], state) // a state fits into a pipe; a hook need not read it
	syscall.Close(in[1])
	if h.Timeout > 0 {
		late := time.AfterFunc(time.Duration(h.Timeout)*time.Second, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		defer late.Stop()
	}
	var ws syscall.WaitStatus
	_, err = syscall.Wait4(pid, &ws, 0, nil)
	for errors.Is(err, syscall.EINTR) {
		_, err = syscall.Wait4(pid, &ws, 0, nil)
	}
	switch {
	case err != nil:
		return err
	case ws.Signaled():
		return fmt.Errorf("signal: %s", ws.Signal())
	case ws.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	return nil
}

// preserve moves the descriptors that the program inherits to where it looks for
// them, right after stderr. The control socket makes room.
func (s *stager) preserve() error {
	n := s.p.Process.Preserved
	if n == 0 {
		return nil
	}
	for _, at := range []*int{&control, &s.user, &s.time, &s.agent, &s.proc} {
		if *at < 0 {
			continue
		}
		fd, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(*at), syscall.F_DUPFD_CLOEXEC, uintptr(preservedFD+n))
		if e != 0 {
			return fmt.Errorf("preserve descriptors: %w", e)
		}
		*at = int(fd)
	}
	for i := range n {
		if err := syscall.Dup3(preservedFD+i, 3+i, 0); err != nil {
			return fmt.Errorf("preserve descriptor %d: %w", 3+i, err)
		}
	}
	return cloexecFrom(uintptr(3 + n))
}
