package main

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that are passed on. To ask for all sixty-four would
// take longer than the container needs to start: each is a message to a thread.
func forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	}
}

// signals passes signals on to a process in the foreground, from before it is there.
type signals struct {
	term *terminal
	// pipe has the numbers of those that came, and come is Go's way; one of the two.
	pipe int
	come chan os.Signal
}

// take makes the signals that come from now on wait for follow. Who has no terminal
// has nothing to do meanwhile but to wait, and needs none of the threads with which
// Go hands signals over: they are a tenth of what it costs to run a container.
func (s *signals) take(terminal bool) {
	if !terminal {
		var err error
		if s.pipe, err = catch(forwarded()); err == nil {
			return
		}
	}
	s.come = make(chan os.Signal, 16)
	signal.Notify(s.come, forwarded()...)
}

// follow passes signals on to whom kill kills. Without a terminal it returns when the
// process, a child of ours that nobody has waited for, has ended.
func (s *signals) follow(pid int, kill func(syscall.Signal)) error {
	if s.come != nil {
		go s.forward(kill)
		return nil
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(s.pipe), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
		var number [1]byte
		if n, err := unix.Read(s.pipe, number[:]); err == nil && n == 1 {
			if sig := syscall.Signal(number[0]); sig != syscall.SIGWINCH {
				kill(sig)
			}
		}
	}
}

// forward passes signals on; the size of the terminal is ours.
func (s *signals) forward(kill func(syscall.Signal)) {
	for got := range s.come {
		if sig := got.(syscall.Signal); sig != syscall.SIGWINCH {
			kill(sig)
			continue
		}
		s.term.resize()
	}
}

// begin takes back, for this thread, what entry has changed for those that Go starts,
// and keeps the program on it, and on one processor.
func begin() {
	const lazy = 10_000_000 // entry has the same
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || slack != lazy {
		runtime.GOMAXPROCS(1) // this one was built without the entry
		return
	}
	runtime.LockOSThread()
	_ = os.Unsetenv("GOMAXPROCS")                      // of a good name it cannot fail
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // what it was
}
