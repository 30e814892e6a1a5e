package main

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"
)

const (
	sysCloseRange = 436 // the same on every architecture
	// spare is how many processes are given up again when there is no room for
	// more, so that there is room to say so.
	spare = 5
)

// fork makes up to so many processes that do nothing, and says how many there
// was room for. They stay.
func fork(most string) error {
	n, err := strconv.Atoi(most)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	var pids []int
	for len(pids) < n {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno == 0 && pid == 0 {
			idle()
		}
		if errno == syscall.EAGAIN {
			break
		}
		if errno != 0 {
			return errno
		}
		pids = append(pids, int(pid))
	}
	if len(pids) < n {
		for _, pid := range pids[:min(spare, len(pids))] {
			if err := errors.Join(syscall.Kill(pid, syscall.SIGKILL), reap(pid)); err != nil {
				return err
			}
		}
	}
	fmt.Println(len(pids))
	return nil
}

func reap(pid int) error {
	_, err := syscall.Wait4(pid, nil, 0, nil)
	return err
}

// idle is what a forked process does: nothing that needs Go's runtime.
func idle() {
	_, _, _ = syscall.RawSyscall(sysCloseRange, 0, 1<<31-1, 0)
	for {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}
