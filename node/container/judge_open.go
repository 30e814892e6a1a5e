package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// place is where a path in /proc leads: a mount, and a file on it.
type place struct {
	mount int
	st    unix.Stat_t
	fs    int64
}

func placeAt(path string) (p place, err error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &p.st), unix.Fstatfs(fd, &fs)); err != nil {
		return p, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	p.fs = fs.Type
	p.mount, err = mountOf("self", fd)
	return p, err
}

// threads wants every thread in the root of the mount namespace.
func (j *judged) threads(pids []int) error {
	root, err := placeAt(fmt.Sprintf("/proc/self/fd/%d", j.root))
	if err != nil {
		return err
	}
	for _, pid := range pids {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return err
		}
		for _, dir := range tasks {
			is, err := placeAt(filepath.Join(dir, "root"))
			if err != nil {
				return err
			}
			if is.mount != root.mount || is.st.Ino != root.st.Ino {
				return fmt.Errorf("%w: a process in another root", ErrExceeds)
			}
		}
	}
	return nil
}

// open wants a process that works in, has open and has in its memory no file but those of the
// mounts, besides its three streams.
func (j *judged) open(pid int) error {
	dir := fmt.Sprintf("/proc/%d", pid)
	raw, err := rawSockets(dir)
	if err != nil {
		return err
	}
	names := []string{"cwd"}
	for _, list := range []string{"fd", "map_files"} {
		all, err := os.ReadDir(filepath.Join(dir, list))
		if err != nil {
			return err
		}
		for _, e := range all {
			names = append(names, filepath.Join(list, e.Name()))
		}
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		link, err := os.Readlink(path)
		if err != nil {
			return err
		}
		ok := reach(&j.p.Process)&(1<<unix.CAP_NET_RAW) != 0 || !raw[link]
		switch {
		case strings.HasPrefix(link, "/"):
			ok, err = j.inside(path)
		case ok:
			ok, err = j.harmless(path, link, dir)
		}
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: %s, which is %q", ErrExceeds, name, link)
		}
	}
	return nil
}

// inside says whether a file is on a mount of the container's, or in memory that has no
// name, or one of its streams.
func (j *judged) inside(path string) (bool, error) {
	is, err := placeAt(path)
	if err != nil {
		return false, err
	}
	if _, ok := j.at[is.mount]; ok || isNull(&is.st) {
		return true, nil
	}
	for _, stream := range []string{j.c.rec.Child.Stdin, j.c.rec.Child.Stdout, j.c.rec.Child.Stderr} {
		var st unix.Stat_t
		if stream != "" && unix.Stat(stream, &st) == nil && st.Ino == is.st.Ino && st.Dev == is.st.Dev {
			return true, nil
		}
	}
	const aioRing = 0x47504653 // what io_setup(2) maps: fs/aio.c
	if is.fs == aioRing || is.fs == unix.HUGETLBFS_MAGIC {
		return true, nil
	}
	memory, err := memoryDevice()
	return is.st.Dev == memory, err
}

// memoryDevice is the number of the filesystem that shared memory without a name is on: one
// for as long as the kernel runs.
var memoryDevice = sync.OnceValues(func() (uint64, error) {
	fd, err := unix.MemfdCreate("any", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return st.Dev, err
})

// harmless says whether a descriptor of something that is no file is one that any
// process could have made: not what listens to others' files, or runs in the kernel.
func (j *judged) harmless(path, link, dir string) (bool, error) {
	kind, what, _ := strings.Cut(link, ":")
	switch kind {
	case "pipe", "pidfd":
		return true, nil
	case "socket":
		return nothingUnderWay(filepath.Join(dir, "fdinfo", filepath.Base(path)))
	case "anon_inode":
		if strings.Trim(what, "[]") == "inotify" {
			return j.watches(filepath.Join(dir, "fdinfo", filepath.Base(path)))
		}
		return slices.Contains([]string{"eventfd", "eventpoll", "signalfd", "timerfd", "pidfd"}, strings.Trim(what, "[]")) ||
			reach(&j.p.Process)&(1<<unix.CAP_SYS_ADMIN) != 0, nil
	}
	same, err := sameFile(path, filepath.Join(dir, "ns", kind)) // its own namespace
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return same, err
}

// nothingUnderWay says whether no descriptor lies in a socket's queue (unix(7), SCM_RIGHTS):
// criu brings those back too, and a process that takes one out has what nobody has looked at.
func nothingUnderWay(fdinfo string) (bool, error) {
	f, err := os.Open(fdinfo)
	if err != nil {
		return false, err
	}
	defer f.Close()
	text, err := readWhole(f, maxSockets) // locks come before, as many as there are
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "scm_fds:"); ok { // of those with an address family of unix
			return strings.TrimSpace(n) == "0", nil
		}
	}
	return true, nil
}

// maxSockets bounds each list of sockets of a network namespace, and what is said of one.
const maxSockets = 16 << 20

// rawSockets are those by which one sees, or says, what is not one's own, as links in /proc
// name them (proc_pid_net(5)): by file, the inode is another field.
func rawSockets(dir string) (map[string]bool, error) {
	out := map[string]bool{}
	for name, field := range map[string]int{"packet": 8, "raw": 9, "raw6": 9} {
		f, err := os.Open(filepath.Join(dir, "net", name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		text, err := readWhole(f, maxSockets)
		f.Close()
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > field {
				out["socket:["+f[field]+"]"] = true
			}
		}
	}
	return out, nil
}
