package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// maxCopyDepth bounds the directories below each other that a tmpfs takes over: two
// descriptors each are open on the way.
const maxCopyDepth = 200

// tmpfs makes one that has the mode of the directory which it covers, unless the
// options say otherwise, and with CopyUp its owner and all that is in it.
func (s *stager) tmpfs(m *plan.Mount) (int, error) {
	options, attrs := split(s.ownedData(m)), attrsOf(m.Flags)
	covered, err := openat2(s.root, m.Target, syscall.O_RDONLY|syscall.O_DIRECTORY, 0, inRoot)
	if err != nil { // it is made, and then this one has the mode of any tmpfs; or the target says what is wrong
		return newMountOptions("tmpfs", m.Source, inContext(options, m.Context), attrs)
	}
	defer syscall.Close(covered)
	var st syscall.Stat_t
	if err := syscall.Fstat(covered, &st); err != nil {
		return -1, err
	}
	if !hasOption(options, "mode") {
		options = append(options, fmt.Sprintf("mode=%o", st.Mode&0o7777))
	}
	if !m.CopyUp {
		return newMountOptions("tmpfs", m.Source, inContext(options, m.Context), attrs)
	}
	fd, err := newMountOptions("tmpfs", m.Source, inContext(options, m.Context), 0)
	if err != nil {
		return -1, err
	}
	if !hasOption(split(m.Data), "uid") && !hasOption(split(m.Data), "gid") {
		err = ownedBy(fd, "", &st)
	}
	if err == nil {
		err = copyUp(covered, fd, maxCopyDepth)
	}
	if err == nil {
		err = mountSetattr(fd, false, mountAttr{Set: attrs, Clear: attrAtime * min(1, attrs&attrAtime)})
	}
	if err != nil {
		syscall.Close(fd)
		return -1, fmt.Errorf("copy what is covered: %w", err)
	}
	return fd, nil
}

func hasOption(options []string, key string) bool {
	return slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, key+"=") })
}

// copyUp copies what is in one directory to another. Nothing but us knows the second.
func copyUp(from, to, depth int) error {
	if depth == 0 {
		return syscall.ELOOP
	}
	// A descriptor of its own, which the list is closed with.
	list, err := openat2(from, ".", syscall.O_RDONLY|syscall.O_DIRECTORY, 0, resolveBeneath)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(list), "directory")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := copyOne(from, to, name, depth); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
		}
	}
}

func copyOne(from, to int, name string, depth int) error {
	at, err := openat2(from, name, oPath|syscall.O_NOFOLLOW, 0, resolveBeneath)
	if err != nil {
		return err
	}
	defer syscall.Close(at)
	var st syscall.Stat_t
	if err := syscall.Fstat(at, &st); err != nil {
		return err
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFLNK:
		return copyLink(at, to, name, &st)
	case syscall.S_IFDIR:
		err = copyDirectory(from, to, name, depth)
	case syscall.S_IFREG:
		err = copyFile(from, to, name)
	default:
		err = syscall.Mknodat(to, name, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := ownedBy(to, name, &st); err != nil {
		return err
	}
	return syscall.Fchmodat(to, name, st.Mode&0o7777, 0) // after the owner, whose change takes setuid away
}

func copyLink(at, to int, name string, st *syscall.Stat_t) error {
	b := make([]byte, 4096)
	n, _, e := syscall.Syscall6(syscall.SYS_READLINKAT, uintptr(at), cstr(""), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0)
	if e != 0 {
		return e
	}
	if _, _, e := syscall.Syscall(syscall.SYS_SYMLINKAT, cstr(string(b[:n])), uintptr(to), cstr(name)); e != 0 {
		return e
	}
	return ownedBy(to, name, st)
}

func copyDirectory(from, to int, name string, depth int) error {
	if err := syscall.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	const flags, resolve = syscall.O_RDONLY | syscall.O_DIRECTORY, resolveBeneath | resolveNoSymlinks
	in, err := openat2(from, name, flags, 0, resolve)
	if err != nil {
		return err
	}
	defer syscall.Close(in)
	out, err := openat2(to, name, flags, 0, resolve)
	if err != nil {
		return err
	}
	defer syscall.Close(out)
	return copyUp(in, out, depth-1)
}

func copyFile(from, to int, name string) error {
	in, err := openat2(from, name, syscall.O_RDONLY|syscall.O_NONBLOCK, 0, resolveBeneath|resolveNoSymlinks)
	if err != nil {
		return err
	}
	r := os.NewFile(uintptr(in), name)
	defer r.Close()
	out, err := openat2(to, name, syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY, 0o600, resolveBeneath|resolveNoSymlinks)
	if err != nil {
		return err
	}
	w := os.NewFile(uintptr(out), name)
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// ownedBy gives something in a directory, or with no name that itself, an owner.
func ownedBy(dir int, name string, st *syscall.Stat_t) error {
	const noFollow = 0x100 // AT_SYMLINK_NOFOLLOW
	_, _, e := syscall.Syscall6(syscall.SYS_FCHOWNAT, uintptr(dir), cstr(name), uintptr(st.Uid), uintptr(st.Gid), atEmptyPath|noFollow, 0)
	return check(e)
}
