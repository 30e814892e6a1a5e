package main

import (
	"runtime"
	"sync"
	"syscall"
)

// inPIDNS runs f on a thread whose children are born in the pid namespace at path.
// The thread is there for nothing else, so that an exec does not cost the start and
// the end of one; between two of them it lets go of the container's namespace.
func inPIDNS(path string, f func() error) error {
	done := make(chan error, 1)
	forks() <- func(own int) {
		err := enter(path, syscall.CLONE_NEWPID)
		if err == nil {
			err = f()
			_ = setns(own, syscall.CLONE_NEWPID) // the next one enters its own all the same
		}
		done <- err
	}
	return <-done
}

// forks starts the thread when it is wanted first.
var forks = sync.OnceValue(func() chan<- func(own int) { //nolint:gochecknoglobals // the keeper is one process
	jobs := make(chan func(int))
	go func() {
		runtime.LockOSThread()
		own, _ := openFD("/proc/self/ns/pid", syscall.O_RDONLY) // without it, it never lets go
		for f := range jobs {
			f(own)
		}
	}()
	return jobs
})
