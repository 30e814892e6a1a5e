package main

import (
	"errors"
	"fmt"
	"path"
	"syscall"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// devices makes the device nodes and links on the fresh /dev.
func (s *stager) devices() error {
	dev, err := openat2(s.root, "dev", oPath|syscall.O_DIRECTORY, 0, inRoot|resolveNoSymlinks)
	if err != nil {
		return err
	}
	defer syscall.Close(dev)
	if m, err := fsMagic(dev); err != nil || m != magicTmpfs {
		return err // a /dev of the host, bound: it has everything
	}
	for i := range s.p.Devices {
		if err := s.device(&s.p.Devices[i]); err != nil {
			return fmt.Errorf("device %q: %w", s.p.Devices[i].Path, err)
		}
	}
	links := [][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
	}
	for _, l := range links {
		_, _, e := syscall.Syscall(syscall.SYS_SYMLINKAT, cstr(l[0]), uintptr(dev), cstr(l[1]))
		if e != 0 && e != syscall.EEXIST {
			return fmt.Errorf("link /dev/%s: %w", l[1], e)
		}
	}
	return nil
}

func (s *stager) device(d *plan.Device) error {
	parent, err := s.mkdirs(path.Dir(d.Path))
	if err != nil {
		return err
	}
	defer syscall.Close(parent)
	name := path.Base(d.Path)
	number := int(d.Minor&0xff | d.Major<<8 | (d.Minor&^0xff)<<12)
	err = syscall.Mknodat(parent, name, d.Mode, number)
	switch {
	case errors.Is(err, syscall.EEXIST):
		return nil
	case errors.Is(err, syscall.EPERM): // in a user namespace: bind the host's
		return s.mount(&plan.Mount{Source: d.Path, Target: d.Path, Bind: true}, nil)
	case err != nil:
		return err
	}
	fd, err := openat2(parent, name, oPath|syscall.O_NOFOLLOW, 0, resolveBeneath)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	// mknod is subject to the umask, and fchmod does not take O_PATH descriptors.
	if err := syscall.Fchmodat(parent, name, d.Mode&0o7777, 0); err != nil {
		return err
	}
	p := &s.p.Process
	_, _, e := syscall.Syscall6(syscall.SYS_FCHOWNAT, uintptr(fd), cstr(""), uintptr(p.RootUID+d.UID), uintptr(p.RootGID+d.GID), atEmptyPath, 0)
	return check(e)
}

// makeCwd makes the working directory while the root can still be written.
func (s *stager) makeCwd() error {
	cwd := s.p.Process.Cwd
	if cwd == "" || cwd == "/" {
		return nil
	}
	fd, err := s.mkdirs(path.Clean("/" + cwd))
	switch {
	case err == nil:
		syscall.Close(fd)
		return nil
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ELOOP):
		return nil // chdir will say what is wrong
	}
	return fmt.Errorf("make working directory %q: %w", cwd, err)
}

// enterRoot makes the root the root of the mount namespace, leaves the host's
// behind, and hides what must not be seen.
func (s *stager) enterRoot() error {
	if err := s.sysctls(); err != nil {
		return err
	}
	old, err := syscall.Open("/", oPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Fchdir(s.root); err != nil {
		return fmt.Errorf("enter rootfs: %w", err)
	}
	if err := syscall.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := syscall.Fchdir(old); err != nil {
		return err
	}
	if err := syscall.Mount("", ".", "", syscall.MS_SLAVE|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("detach the host's root: %w", err)
	}
	if err := syscall.Unmount(".", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the host's root: %w", err)
	}
	syscall.Close(old)
	if err := syscall.Chdir("/"); err != nil {
		return err
	}
	if err := s.hide(); err != nil {
		return err
	}
	if s.p.DevReadonly {
		if err := s.remount(&plan.Mount{Target: "dev", Flags: syscall.MS_RDONLY}); err != nil {
			return fmt.Errorf("make /dev read-only: %w", err)
		}
	}
	return s.sealRoot()
}

func (s *stager) hide() error {
	for _, p := range s.p.Readonly {
		if err := s.readonly(p); err != nil {
			return fmt.Errorf("make %q read-only: %w", p, err)
		}
	}
	for _, p := range s.p.Masked {
		if err := s.mask(p); err != nil {
			return fmt.Errorf("mask %q: %w", p, err)
		}
	}
	closeAll([]int{s.empty})
	s.empty = -1
	return nil
}

func missing(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
}

func (s *stager) readonly(name string) error {
	at, err := openat2(s.root, name, oPath, 0, inRoot)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer syscall.Close(at)
	fd, err := openTree(at, "", openTreeClone|atRecursive|atEmptyPath)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := mountSetattr(fd, true, mountAttr{Set: attrRdonly}); err != nil {
		return err
	}
	return attach(fd, at)
}

// mask covers a directory with an empty tmpfs and a file with the null device,
// having made sure that it is the null device.
func (s *stager) mask(name string) error {
	at, err := openat2(s.root, name, oPath, 0, inRoot)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer syscall.Close(at)
	var st syscall.Stat_t
	if err := syscall.Fstat(at, &st); err != nil {
		return err
	}
	var cover int
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		cover, err = s.emptyMount()
	} else {
		cover, err = s.nullMount()
	}
	if err != nil {
		return err
	}
	defer syscall.Close(cover)
	return attach(cover, at)
}

// emptyMount is a directory with nothing in it: all that are hidden have the same.
func (s *stager) emptyMount() (int, error) {
	if s.empty < 0 {
		fd, err := newMountOptions("tmpfs", "tmpfs", inContext([]string{"nr_blocks=1", "nr_inodes=1"}, s.p.Root.Context), attrRdonly)
		if err != nil {
			return -1, err
		}
		s.empty = fd
		return syscall.Dup(fd)
	}
	return openTree(s.empty, "", openTreeClone|atEmptyPath)
}

func (s *stager) nullMount() (int, error) {
	null, err := openat2(s.root, "dev/null", oPath|syscall.O_NOFOLLOW, 0, inRoot)
	if err != nil {
		return -1, err
	}
	defer syscall.Close(null)
	var st syscall.Stat_t
	if err := syscall.Fstat(null, &st); err != nil {
		return -1, err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFCHR || st.Rdev != 1<<8|3 {
		return -1, errors.New("/dev/null is not the null device")
	}
	return openTree(null, "", openTreeClone|atEmptyPath)
}

// sealRoot gives the root mount its final attributes.
func (s *stager) sealRoot() error {
	if p := s.p.Root.Propagation; p != 0 {
		attr := mountAttr{Propagation: uint64(p &^ syscall.MS_REC)}
		if err := mountSetattr(s.root, p&syscall.MS_REC != 0, attr); err != nil {
			return fmt.Errorf("rootfs propagation: %w", err)
		}
	}
	if !s.p.Root.Readonly {
		return nil
	}
	if err := mountSetattr(s.root, false, mountAttr{Set: attrRdonly}); err != nil {
		return fmt.Errorf("make rootfs read-only: %w", err)
	}
	return nil
}

// console makes the tty of a new container and binds it to /dev/console.
func (s *stager) console() ([]int, error) {
	if !s.p.Process.TTY {
		return nil, nil
	}
	return s.openConsole(true)
}

// openConsole opens a pair in the container's devpts, makes the slave our stdio
// and returns the master. The slave is taken from the master's descriptor: its
// path is the container's to forge.
func (s *stager) openConsole(bind bool) ([]int, error) {
	master, err := openat2(s.root, "dev/pts/ptmx", syscall.O_RDWR|syscall.O_NOCTTY, 0, inRoot|resolveNoSymlinks)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	if m, err := fsMagic(master); err != nil || m != magicDevpts {
		return nil, fmt.Errorf("console: /dev/pts is not devpts (magic %#x)", m)
	}
	unlock := new(int32)
	if _, err := ioctl(master, ioctlLockPty, uintptr(unsafe.Pointer(unlock))); err != nil {
		return nil, fmt.Errorf("console: unlock: %w", err)
	}
	slave, err := ioctl(master, ioctlGetPeer, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("console: open peer: %w", err)
	}
	p := &s.p.Process
	if err := syscall.Fchown(int(slave), s.hostUID(p.UID), -1); err != nil {
		s.tolerate("console: chown to %d: %v", p.UID, err)
	}
	if p.Rows != 0 || p.Cols != 0 {
		_, _ = ioctl(master, syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&[4]uint16{p.Rows, p.Cols})))
	}
	if bind {
		if err := s.bindConsole(int(slave)); err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
	}
	for fd := range 3 {
		if err := syscall.Dup3(int(slave), fd, 0); err != nil {
			return nil, fmt.Errorf("console: dup: %w", err)
		}
	}
	if _, err := ioctl(0, syscall.TIOCSCTTY, 0); err != nil {
		return nil, fmt.Errorf("console: controlling terminal: %w", err)
	}
	return []int{master}, nil
}

func (s *stager) bindConsole(slave int) error {
	from, err := openTree(slave, "", openTreeClone|atEmptyPath)
	if err != nil {
		return err
	}
	defer syscall.Close(from)
	to, err := s.target("dev/console", false, inRoot)
	if err != nil {
		return err
	}
	defer syscall.Close(to)
	return attach(from, to)
}
