package main

import (
	"fmt"
	"os"
	"syscall"
)

// A time namespace that is made begins with the next program (Linux 6.1). One that is
// there is entered by a process with one thread only, which is what executes the
// program of a container with a user namespace: see calls.go.

// openTime opens the time namespace to enter, while its path can be seen.
func (s *stager) openTime() error {
	for _, j := range s.p.Joins {
		if j.Flag != cloneNewtime {
			continue
		}
		fd, err := syscall.Open(j.Path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("join namespace: %w", &os.PathError{Op: "open", Path: j.Path, Err: err})
		}
		s.time = fd
	}
	return nil
}

// setTime sets the clocks of a time namespace that has been made: once, and before
// anybody is in it.
func (s *stager) setTime() error {
	if s.p.TimeOffsets == "" {
		return nil
	}
	if err := writeFile("/proc/self/timens_offsets", s.p.TimeOffsets); err != nil {
		return fmt.Errorf("set the offsets of a time namespace: %w", err)
	}
	return nil
}

// entersLater says that another program of ours executes the container's, because it
// has to enter namespaces that only a process with one thread can, or must not make a
// call that it has not been told of.
func (s *stager) entersLater() bool { return s.p.Process.UserNS != "" || s.time >= 0 || s.agent >= 0 }
