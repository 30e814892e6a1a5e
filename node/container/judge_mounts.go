package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// judged are the mounts of a restored container while they are looked at.
type judged struct {
	c *container
	p *plan.Plan
	// root is the root of the mount namespace: that of a process may be below it, and its
	// mountinfo is then silent about the rest.
	root int
	at   map[int]mounted
}

// parent is the process that has had criu bring the container back, and its root
// mounted.
func (c *container) parent() (int, error) {
	text, err := readSmall(fmt.Sprintf("/proc/%d/status", c.rec.PID))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if parent, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strconv.Atoi(strings.TrimSpace(parent))
		}
	}
	return 0, fmt.Errorf("process %d has no parent", c.rec.PID)
}

// judgeFiles wants processes in the root that has been placed for them, which has mounted in
// it what the plan has and nothing else, and that have no file from anywhere else.
func (c *container) judgeFiles(p *plan.Plan, placed string, pids []int) error {
	root, err := namespaceRoot(c.rec.PID)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	same, err := sameFile(fmt.Sprintf("/proc/self/fd/%d", root), placed)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%w: another root", ErrExceeds)
	}
	j := &judged{c: c, p: p, root: root, at: map[int]mounted{}}
	if err := j.threads(pids); err != nil { // before its mountinfo is believed
		return err
	}
	if err := j.mounts(); err != nil {
		return err
	}
	for _, pid := range pids {
		if err := j.open(pid); err != nil {
			return err
		}
	}
	return nil
}

// namespaceRoot opens the root of the mount namespace that a process is in.
func namespaceRoot(pid int) (fd int, err error) {
	err = onLostThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := enter(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err != nil {
			return err
		}
		fd, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// mounts compares what is mounted with the plan.
func (j *judged) mounts() error {
	info, err := mountsOf(j.c.rec.PID)
	if err != nil {
		return err
	}
	for _, m := range info {
		j.at[m.id] = m
	}
	own, err := mountOf("self", j.root)
	if err != nil {
		return err
	}
	if m := j.at[own]; m.point != "/" || j.p.Root.Readonly && !m.has(unix.MS_RDONLY) {
		return fmt.Errorf("%w: a root that can be written to", ErrExceeds)
	}
	expected := map[int]bool{own: true}
	for i := range j.p.Mounts {
		m := &j.p.Mounts[i]
		id, err := j.mount(m)
		if err != nil {
			return fmt.Errorf("mount on %q: %w", m.Target, err)
		}
		expected[id] = true
	}
	for i, name := range append(append([]string{}, j.p.Masked...), j.p.Readonly...) {
		id, err := j.hidden(name, i < len(j.p.Masked))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return err
		}
		expected[id] = true
	}
	for _, m := range info {
		if !expected[m.id] {
			return fmt.Errorf("%w: a mount of %s on %q", ErrExceeds, m.fstype, m.point)
		}
	}
	return nil
}

// lookUp opens a path of the container's. Nothing that it makes leads out.
func lookUp(root int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	return unix.Openat2(root, name, &how)
}

// mount compares one mount with what it is to be.
func (j *judged) mount(m *plan.Mount) (int, error) {
	fd, err := lookUp(j.root, m.Target, unix.O_PATH)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	id, err := mountOf("self", fd)
	if err != nil {
		return 0, err
	}
	is, want := j.at[id], m.Flags&restrictions
	if j.p.DevReadonly && filepath.Clean("/"+m.Target) == "/dev" {
		want |= unix.MS_RDONLY
	}
	if !is.has(want) {
		return 0, fmt.Errorf("%w: it lacks one of nosuid, nodev, noexec and ro", ErrExceeds)
	}
	if m.Remount {
		return id, nil
	}
	if !fromOutside(m) {
		if is.fstype != m.Type || is.root != "/" {
			return 0, fmt.Errorf("%w: %q of %s for %s", ErrExceeds, is.root, is.fstype, m.Type)
		}
		return id, nil
	}
	source, err := j.c.sourceOf(m, j.p.Unshare&unix.CLONE_NEWCGROUP != 0)
	if err != nil {
		return 0, err
	}
	same, err := sameFile(fmt.Sprintf("/proc/self/fd/%d", fd), source)
	if err == nil && !same {
		err = fmt.Errorf("%w: something else than %q", ErrExceeds, source)
	}
	return id, err
}

// hidden wants a path covered: masked by the null device or by a directory with nothing in
// it, or else by what is there anyway, without write access.
func (j *judged) hidden(name string, masked bool) (int, error) {
	fd, err := lookUp(j.root, name, unix.O_PATH)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	id, err := mountOf("self", fd)
	if err != nil {
		return 0, err
	}
	m, ok := j.at[id], false
	switch {
	case m.point != name:
	case masked:
		ok, err = j.covered(fd, name, &m)
	case m.has(unix.MS_RDONLY):
		ok, err = j.shown(name, &m)
	}
	if err == nil && !ok {
		err = fmt.Errorf("%w: %q is open", ErrExceeds, name)
	}
	return id, err
}

// covered says whether a mount shows nothing.
func (j *judged) covered(fd int, name string, m *mounted) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	if isNull(&st) {
		return true, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || m.fstype != "tmpfs" || !m.has(unix.MS_RDONLY) {
		return false, nil
	}
	list, err := lookUp(j.root, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, err
	}
	dir := os.NewFile(uintptr(list), name)
	defer dir.Close()
	_, err = dir.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

func isNull(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// shown says whether a mount shows what would be there without it.
func (j *judged) shown(name string, m *mounted) (bool, error) {
	id, err := mountAt(j.root, path.Dir(name))
	if err != nil {
		return false, err
	}
	below := j.at[id]
	rel, err := filepath.Rel(below.point, name)
	return err == nil && m.dev == below.dev && m.root == path.Join(below.root, rel), nil
}
