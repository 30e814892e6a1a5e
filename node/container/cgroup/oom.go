package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// OOM is told by the kernel when a group runs out of memory. It is for one goroutine.
type OOM struct {
	g  *Group
	fd int
	// unified says which of the kernel's two ways it is, and seen what was counted.
	unified bool
	seen    uint64
}

// WatchOOM begins to be told; it fails where no controller counts the group's memory.
func (g *Group) WatchOOM() (*OOM, error) {
	w := &OOM{g: g, unified: cgroups.IsCgroup2UnifiedMode(), seen: g.OOMKills()}
	dir := g.m.Path("memory")
	if dir == "" {
		return nil, fmt.Errorf("cgroup %q: no memory controller", g.path)
	}
	var err error
	if w.unified {
		w.fd, err = watchFile(filepath.Join(dir, "memory.events"))
	} else {
		w.fd, err = registerEvent(dir, "memory.oom_control")
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup %q: watch its memory: %w", g.path, err)
	}
	return w, nil
}

// FD is readable when Happened has something to look at.
func (w *OOM) FD() int { return w.fd }

// Happened says whether the group has run out of memory since it was asked last.
func (w *OOM) Happened() bool {
	var b [4096]byte
	n, err := unix.Read(w.fd, b[:])
	if err != nil || n == 0 {
		return false
	}
	if !w.unified { // a group that is removed says so too
		_, err := os.Stat(w.g.m.Path("memory"))
		return err == nil
	}
	before := w.seen
	w.seen = w.g.OOMKills()
	return w.seen > before
}

// Close ends it.
func (w *OOM) Close() { unix.Close(w.fd) }

func watchFile(path string) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, os.NewSyscallError("inotify_init1", err)
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "watch", Path: path, Err: err}
	}
	return fd, nil
}

// registerEvent is how v1 tells of what happens to a file of a group (the kernel's
// cgroup-v1/memory.txt, "OOM Control").
func registerEvent(dir, name string) (int, error) {
	about, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return -1, err
	}
	defer about.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, os.NewSyscallError("eventfd", err)
	}
	text := fmt.Sprintf("%d %d", fd, about.Fd())
	if err := os.WriteFile(filepath.Join(dir, "cgroup.event_control"), []byte(text), 0); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
