package main

import (
	"os"
	"syscall"
	"unsafe"
)

// System calls younger than 2018 have the same number on every architecture.
const (
	sysPidfdSendSignal = 424
	sysOpenTree        = 428
	sysMoveMount       = 429
	sysFsopen          = 430
	sysFsconfig        = 431
	sysFsmount         = 432
	sysPidfdOpen       = 434
	sysCloseRange      = 436
	sysOpenat2         = 437
	sysMountSetattr    = 442
)

const (
	oPath = 0x200000

	atFdcwd     = -100
	atEmptyPath = 0x1000
	atRecursive = 0x8000

	resolveNoMagiclinks = 0x02
	resolveNoSymlinks   = 0x04
	resolveNoXdev       = 0x01
	resolveBeneath      = 0x08
	resolveInRoot       = 0x10

	openTreeClone   = 1
	openTreeCloexec = syscall.O_CLOEXEC

	moveFromEmpty = 0x04
	moveToEmpty   = 0x40

	fsopenCloexec     = 1
	fsmountCloexec    = 1
	fsconfigSetFlag   = 0
	fsconfigSetString = 1
	fsconfigCreate    = 6

	closeRangeCloexec = 4

	pPidfd     = 3
	waitExited = 4
	waitNowait = 0x01000000

	prSetDumpable   = 4
	prSetKeepcaps   = 8
	prCapbsetDrop   = 24
	prSetTimerslack = 29
	prGetTimerslack = 30
	prSetNoNewPrivs = 38
	prCapAmbient    = 47
	ambientRaise    = 2
	ambientClearAll = 4
	cloneNewcgroup  = 0x02000000
	cloneNewtime    = 0x80
	cloneFs         = 0x00000200
	magicProc       = 0x9fa0
	magicDevpts     = 0x1cd1
	magicTmpfs      = 0x01021994
	ioctlGetPeer    = 0x5441
	ioctlLockPty    = 0x40045431
	ioctlPidfdInfo  = 0xc040ff0b
	pidfdInfoExit   = 1 << 3
	pollIn          = 1
	pollHup         = 0x10
)

// openHow is struct open_how.
type openHow struct{ Flags, Mode, Resolve uint64 }

// mountAttr is struct mount_attr.
type mountAttr struct{ Set, Clear, Propagation, UserNS uint64 }

func cstr(s string) uintptr {
	p, err := syscall.BytePtrFromString(s)
	if err != nil {
		p = new(byte) // a NUL inside: the kernel will say that "" does not exist
	}
	keep(p)
	return uintptr(unsafe.Pointer(p))
}

// pinned keeps the strings of a stage alive: a stage never collects garbage, and
// the keeper itself makes no call that takes one of these.
var pinned []*byte

func keep(p *byte) { pinned = append(pinned, p) }

func check(e syscall.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// openat2 opens path below dir; flags get O_CLOEXEC.
func openat2(dir int, path string, flags int, mode uint32, resolve uint64) (int, error) {
	how := openHow{Flags: uint64(flags | syscall.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve}
	for {
		fd, _, e := syscall.Syscall6(sysOpenat2, uintptr(dir), cstr(path),
			uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		if e == syscall.EAGAIN || e == syscall.EINTR { // a rename raced with "..": the kernel asks to try again
			continue
		}
		if e != 0 {
			return -1, &os.PathError{Op: "openat2", Path: path, Err: e}
		}
		return int(fd), nil
	}
}

func openTree(dir int, path string, flags uint) (int, error) {
	fd, _, e := syscall.Syscall(sysOpenTree, uintptr(dir), cstr(path), uintptr(flags|openTreeCloexec))
	if e != 0 {
		return -1, &os.PathError{Op: "open_tree", Path: path, Err: e}
	}
	return int(fd), nil
}

// attach moves the detached mount from onto the file or directory to.
func attach(from, to int) error {
	_, _, e := syscall.Syscall6(sysMoveMount, uintptr(from), cstr(""), uintptr(to), cstr(""), moveFromEmpty|moveToEmpty, 0)
	return check(e)
}

func mountSetattr(fd int, recursive bool, attr mountAttr) error {
	flags := uintptr(atEmptyPath)
	if recursive {
		flags |= atRecursive
	}
	_, _, e := syscall.Syscall6(sysMountSetattr, uintptr(fd), cstr(""), flags,
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	return check(e)
}

func setns(fd int, flag uintptr) error {
	_, _, e := syscall.RawSyscall(sysSetns, uintptr(fd), flag, 0)
	return check(e)
}

func prctl(op, a, b uintptr) error {
	_, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, op, a, b, 0, 0, 0)
	return check(e)
}

// setName is what ps shows instead of the name of a descriptor.
func setName(name string) {
	const prSetName = 15
	_ = prctl(prSetName, cstr(name), 0)
}

// maxFD is the largest number that a descriptor can have.
const maxFD = 1<<31 - 1

// cloexecFrom keeps the program that comes next from inheriting fd and those above.
func cloexecFrom(fd uintptr) error {
	_, _, e := syscall.RawSyscall(sysCloseRange, fd, maxFD, closeRangeCloexec)
	return check(e)
}

// closeFrom must come before the runtime opens descriptors of its own.
func closeFrom(fd uintptr) {
	_, _, _ = syscall.RawSyscall(sysCloseRange, fd, maxFD, 0)
}

// ioctl passes a number or the address of something on the heap.
//
//go:uintptrescapes
func ioctl(fd int, op, arg uintptr) (uintptr, error) {
	r, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), op, arg)
	return r, check(e)
}

func fsMagic(fd int) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(fd, &st); err != nil {
		return 0, err
	}
	return st.Type, nil
}

// pidfdState reports whether the pidfd's process has ended, and whether it has
// been reaped as well.
func pidfdState(fd int) (ended, reaped bool) {
	p := struct {
		FD              int32
		Events, Revents int16
	}{FD: int32(fd), Events: pollIn}
	var now syscall.Timespec
	_, _, e := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	if e != 0 {
		return false, false
	}
	return p.Revents&(pollIn|pollHup) != 0, p.Revents&pollHup != 0
}

// waitPidfd peeks at or reaps a child that has ended.
func waitPidfd(fd int, options uintptr) (code, status int32, err error) {
	var info struct {
		Signo, Errno, Code, _ int32
		PID, UID              int32
		Status                int32
		_                     [100]byte
	}
	for {
		_, _, e := syscall.Syscall6(syscall.SYS_WAITID, pPidfd, uintptr(fd), uintptr(unsafe.Pointer(&info)), waitExited|options, 0, 0)
		if e == syscall.EINTR {
			continue
		}
		return info.Code, info.Status, check(e)
	}
}

// pidfdExit asks the kernel (Linux 6.15) for the wait status of a process that was
// never our child.
func pidfdExit(fd int) (syscall.WaitStatus, bool) {
	var info struct {
		Mask, Cgroup uint64
		IDs          [11]uint32
		Exit         int32
	}
	info.Mask = pidfdInfoExit
	_, err := ioctl(fd, ioctlPidfdInfo, uintptr(unsafe.Pointer(&info)))
	return syscall.WaitStatus(info.Exit), err == nil && info.Mask&pidfdInfoExit != 0
}

func pidfdOpen(pid int) (int, error) {
	fd, _, e := syscall.Syscall(sysPidfdOpen, uintptr(pid), 0, 0)
	return int(fd), check(e)
}

func pidfdKill(fd int, sig syscall.Signal) error {
	_, _, e := syscall.Syscall6(sysPidfdSendSignal, uintptr(fd), uintptr(sig), 0, 0, 0, 0)
	return check(e)
}
