package main

import (
	"runtime"
	"sync"
	"syscall"
)

// inPIDNS runs f on a thread whose children are born in the pid namespace that join
// enters with the thread, and takes the thread back to the keeper's own. It is the caller's thread: to hand
// the work to another, and to wait for it, would take as long as the fork. A thread
// that cannot go back stays this goroutine's and ends with it.
func inPIDNS(join, f func() error) error {
	own := ownPIDNS()
	runtime.LockOSThread()
	if err := join(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err := f()
	if setns(own, syscall.CLONE_NEWPID) == nil {
		runtime.UnlockOSThread()
	}
	return err
}

// ownPIDNS is the keeper's pid namespace, or -1 when it cannot be opened.
var ownPIDNS = sync.OnceValue(func() int { //nolint:gochecknoglobals // the keeper is one process
	fd, err := openFD("/proc/self/ns/pid", syscall.O_RDONLY)
	if err != nil {
		return -1
	}
	return fd
})
