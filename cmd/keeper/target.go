package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"unsafe"
)

// maxLinks bounds how many links that lead nowhere are followed to where they would.
const maxLinks = 40

// target opens, or makes, what a mount goes onto. It cannot leave the root.
func (s *stager) target(name string, dir bool, resolve uint64) (int, error) {
	for range maxLinks {
		fd, err := openat2(s.root, name, oPath, 0, resolve)
		if err == nil || !errors.Is(err, syscall.ENOENT) {
			return fd, err
		}
		to, err := s.makeTarget(name, dir)
		if err != nil {
			return -1, err
		}
		if to == "" {
			return openat2(s.root, name, oPath, 0, resolve)
		}
		name = to
	}
	return -1, &os.PathError{Op: "make", Path: name, Err: syscall.ELOOP}
}

// makeTarget makes a directory or file, or tells where it is to be made: a link in the
// image may lead to what is not there yet.
func (s *stager) makeTarget(name string, dir bool) (elsewhere string, err error) {
	parent, err := s.mkdirs(path.Dir("/" + name))
	if err != nil {
		return "", err
	}
	defer syscall.Close(parent)
	base := path.Base(name)
	if dir {
		err = syscall.Mkdirat(parent, base, 0o755)
	} else {
		var f int
		f, err = openat2(parent, base, syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY, 0o644, resolveBeneath|resolveNoSymlinks)
		if err == nil {
			syscall.Close(f)
		}
	}
	if errors.Is(err, syscall.EEXIST) {
		return nowhere(parent, name), nil
	}
	if err != nil {
		return "", fmt.Errorf("make %q: %w", name, err)
	}
	return "", nil
}

// nowhere is where a link leads, as a path of the root; empty when it is none.
func nowhere(parent int, name string) string {
	to := make([]byte, 4096)
	n, _, e := syscall.Syscall6(syscall.SYS_READLINKAT, uintptr(parent), cstr(path.Base(name)), uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)), 0, 0)
	if e != 0 {
		return ""
	}
	link := string(to[:n])
	if strings.HasPrefix(link, "/") {
		return link
	}
	return path.Dir("/"+name) + "/" + link
}

// mkdirs opens a directory inside the root and makes what is missing of it.
func (s *stager) mkdirs(name string) (int, error) { return s.mkdirsBy(name, maxLinks) }

func (s *stager) mkdirsBy(name string, links int) (int, error) {
	fd, err := openat2(s.root, name, oPath|syscall.O_DIRECTORY, 0, inRoot)
	if err == nil || !errors.Is(err, syscall.ENOENT) || name == "/" {
		return fd, err
	}
	parent, err := s.mkdirsBy(path.Dir(name), links)
	if err != nil {
		return -1, err
	}
	defer syscall.Close(parent)
	err = syscall.Mkdirat(parent, path.Base(name), 0o755)
	if errors.Is(err, syscall.EEXIST) {
		if to := nowhere(parent, name); to != "" && links > 0 {
			return s.mkdirsBy(path.Clean(to), links-1)
		}
	} else if err != nil {
		return -1, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return openat2(s.root, name, oPath|syscall.O_DIRECTORY, 0, inRoot)
}
