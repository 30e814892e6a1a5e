package steps

import (
	"syscall"
	"unsafe"
)

// System calls younger than 2018 have the same number on every architecture.
const (
	sysOpenTree     = 428
	sysMoveMount    = 429
	sysFsopen       = 430
	sysFsconfig     = 431
	sysFsmount      = 432
	sysCloseRange   = 436
	sysOpenat2      = 437
	sysMountSetattr = 442
)

const (
	oPath = 0x200000

	atFdcwd     = ^uint64(99)
	atEmptyPath = 0x1000
	atRecursive = 0x8000

	resolveNoXdev       = 0x01
	resolveNoMagiclinks = 0x02
	resolveNoSymlinks   = 0x04
	resolveBeneath      = 0x08
	resolveInRoot       = 0x10
	inRoot              = resolveInRoot | resolveNoMagiclinks

	openTreeClone     = 1
	openTreeCloexec   = syscall.O_CLOEXEC
	moveBothEmpty     = 0x44
	fsopenCloexec     = 1
	fsmountCloexec    = 1
	fsconfigSetFlag   = 0
	fsconfigSetString = 1
	fsconfigCreate    = 6

	closeRangeCloexec = 4
	maxFD             = 1<<31 - 1

	prSetDumpable   = 4
	prSetKeepcaps   = 8
	prSetName       = 15
	prCapbsetRead   = 23
	prCapbsetDrop   = 24
	prSetNoNewPrivs = 38
	prCapAmbient    = 47
	ambientRaise    = 2
	ambientClearAll = 4
	capVersion3     = 0x20080522
	cloneNewcgroup  = 0x02000000
	cloneNewtime    = 0x80
	setModeFilter   = 1

	attrRdonly = 0x01
	attrAtime  = 0x70
)

// Errors that a list goes on after.
const (
	eNoent  = int64(syscall.ENOENT)
	eNotdir = int64(syscall.ENOTDIR)
	eExist  = int64(syscall.EEXIST)
	eInval  = int64(syscall.EINVAL)
	eAcces  = int64(syscall.EACCES)
)

// attrsOf translates MS_* to MOUNT_ATTR_*.
func attrsOf(ms uintptr) uint64 {
	const msNosymfollow = 256
	var out uint64
	for _, p := range [...]struct {
		ms   uintptr
		attr uint64
	}{
		{syscall.MS_RDONLY, attrRdonly}, {syscall.MS_NOSUID, 0x02}, {syscall.MS_NODEV, 0x04},
		{syscall.MS_NOEXEC, 0x08}, {syscall.MS_NOATIME, 0x10}, {syscall.MS_STRICTATIME, 0x20},
		{syscall.MS_NODIRATIME, 0x80}, {msNosymfollow, 0x200000},
	} {
		if ms&p.ms != 0 {
			out |= p.attr
		}
	}
	return out
}

// how is the address of a struct open_how; flags get O_CLOEXEC.
func (l *list) how(flags, mode int, resolve uint64) value {
	return l.words(uint64(flags|syscall.O_CLOEXEC), uint64(mode), resolve)
}

// openat2 appends one, of name below dir.
func (l *list) openat2(dir value, name string, how value) ref {
	return l.sys(sysOpenat2, dir, l.str(name), how, n(24))
}

// attach moves the detached mount from onto the file or directory to.
func (l *list) attach(from, to value) {
	l.sys(sysMoveMount, from, l.str(""), to, l.str(""), n(moveBothEmpty))
}

// setattr changes the attributes of a mount, or with flags those below it.
func (l *list) setattr(fd value, flags int, set, unset, propagation uint64) {
	l.sys(sysMountSetattr, fd, l.str(""), n(atEmptyPath|flags), l.words(set, unset, propagation, 0), n(32))
}

// propagate gives a mount its propagation, through the old interface.
func (l *list) propagate(path string, flags uintptr) ref {
	return l.sys(syscall.SYS_MOUNT, l.str(""), l.str(path), l.str(""), u(uint64(flags)), n(0))
}

// write opens a file of the host, writes to it, and closes it.
func (l *list) write(path, text string) (opened, written ref) {
	opened = l.sys(syscall.SYS_OPENAT, u(atFdcwd), l.str(path), n(syscall.O_WRONLY|syscall.O_CLOEXEC), n(0))
	fd := opened.keep()
	written = l.sys(syscall.SYS_WRITE, fd, l.str(text), n(len(text)))
	l.sys(syscall.SYS_CLOSE, fd)
	return opened, written
}

// lastCap is the kernel's last capability, asked of the kernel itself.
func lastCap() uint64 {
	last := uint64(40) // of Linux 5.9 and those that followed
	known := func(n uint64) bool {
		_, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prCapbsetRead, uintptr(n), 0)
		return e == 0
	}
	for last < 63 && known(last+1) {
		last++
	}
	for last > 0 && !known(last) {
		last--
	}
	return last
}

// everyCPU is the mask of all processors that this kernel may have.
func everyCPU() []byte {
	mask := make([]byte, maxCPUs/8)
	size, _, e := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, uintptr(len(mask)), uintptr(unsafe.Pointer(&mask[0])))
	if e == 0 { // else the kernel takes what it has a use for
		mask = mask[:size]
	}
	for i := range mask {
		mask[i] = 0xff
	}
	return mask
}

// maxCPUs bounds the processors of a kernel.
const maxCPUs = 8192

// ownCaps are the capabilities that this process could give.
func ownCaps() uint64 {
	h := struct {
		Version uint32
		PID     int32
	}{Version: capVersion3}
	var d [2]struct{ Effective, Permitted, Inheritable uint32 }
	_, _, e := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&d)), 0)
	if e != 0 {
		return 0
	}
	return uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32
}

// ready is the report of a little program that waits to be started.
const ready = `{"Ready":true}`
