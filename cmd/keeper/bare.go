package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// A container sees none of the host's mounts but those that its plan names. To be born
// in a copy of the host's mount namespace would mean to copy them all, of which each pod
// adds some, and to end them all again when its root is entered. So what is of the host
// is opened there, and the container's own namespace is a copy of one with nothing in it.

// bare is a mount namespace with nothing in it, or -1 where there is none to be had: then
// containers are born in copies of the host's.
var bare = sync.OnceValue(func() int { //nolint:gochecknoglobals // the keeper is one process
	made := make(chan int)
	go func() {
		runtime.LockOSThread() // which is in that namespace, and ends with this goroutine
		fd, err := makeBare()
		if err != nil {
			note("containers begin with all mounts of the host", err.Error())
		}
		made <- fd
	}()
	return <-made
})

// makeBare takes the thread into a mount namespace of its own, in which it puts an empty
// directory that cannot be written to in the place of everything, and gives a descriptor
// of it.
func makeBare() (int, error) {
	if err := check(rawUnshare(syscall.CLONE_NEWNS)); err != nil {
		return -1, fmt.Errorf("unshare: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return -1, fmt.Errorf("make mounts private: %w", err)
	}
	ns, err := openFD("/proc/thread-self/ns/mnt", syscall.O_RDONLY)
	if err != nil {
		return -1, err
	}
	if err := emptyRoot(); err != nil {
		syscall.Close(ns)
		return -1, err
	}
	return ns, nil
}

func emptyRoot() error {
	old, err := openFD("/", oPath|syscall.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer syscall.Close(old)
	empty, err := newMount("tmpfs", "tmpfs", "nr_blocks=1,nr_inodes=1,mode=555", attrRdonly)
	if err != nil {
		return fmt.Errorf("empty directory: %w", err)
	}
	defer syscall.Close(empty)
	if err := attach(empty, old); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := syscall.Fchdir(empty); err != nil {
		return err
	}
	if err := syscall.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := syscall.Fchdir(old); err != nil {
		return err
	}
	return os.NewSyscallError("umount", syscall.Unmount(".", syscall.MNT_DETACH))
}
