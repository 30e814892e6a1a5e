package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// To enter a user namespace a process must have one thread, and a Go program
// never has. So the last steps of such a container are not taken by this program
// but by one that it writes: an executable whose only instructions are a loop over
// a list of system calls, with the list and everything that it points to as
// its data. The kernel's execve ends our other threads; the little program
// enters the namespace, gives up root and executes the container's own.

// Where the little program is loaded.
const (
	codeAddress = 0x400000
	dataAddress = 0x600000
	pageSize    = 0x1000
	headersSize = 64 + 2*56
)

// entry is one system call of the list, and what to report when it fails.
type entry struct {
	Nr      uint64
	Args    [6]uint64
	Message uint64
	Length  uint64
	Flags   uint64
}

// Flags of an entry.
const (
	// mayFail goes on whatever the call returns.
	mayFail = 1
	// isAbsolute wants the first argument to point at a slash after the call.
	isAbsolute = 2
)

// endOfCalls is no system call: the list fails there, though it never gets there.
const endOfCalls = ^uint64(0)

// calls collects the list and its data.
type calls struct {
	list []entry
	data []byte
	base uint64
}

// maxCalls bounds the list, so that the data can begin at a fixed address.
const maxCalls = 256

func newCalls() *calls {
	return &calls{base: dataAddress + uint64(unsafe.Sizeof(entry{}))*maxCalls}
}

// put adds bytes to the data, aligned, and returns their address.
func (c *calls) put(b []byte) uint64 {
	for len(c.data)%8 != 0 {
		c.data = append(c.data, 0)
	}
	at := c.base + uint64(len(c.data))
	c.data = append(c.data, b...)
	return at
}

func (c *calls) str(s string) uint64 { return c.put(append([]byte(s), 0)) }

func (c *calls) strs(all []string) uint64 {
	var b []byte
	for _, s := range all {
		b = binary.LittleEndian.AppendUint64(b, c.str(s))
	}
	return c.put(binary.LittleEndian.AppendUint64(b, 0))
}

// add appends a call; what says in a report what it was for.
func (c *calls) add(what string, code int, nr uintptr, args ...uint64) error {
	b, err := plan.Encode(plan.Report{Error: what + ": failed in the user namespace", Code: code})
	if err != nil {
		return err
	}
	e := entry{Nr: uint64(nr), Message: c.put(b), Length: uint64(len(b))}
	copy(e.Args[:], args)
	c.list = append(c.list, e)
	if len(c.list) >= maxCalls {
		return fmt.Errorf("more than %d system calls", maxCalls)
	}
	return nil
}

// elf is the little program.
func (c *calls) elf(code []byte) []byte {
	le := binary.LittleEndian
	var data []byte
	for _, e := range append(c.list, entry{Nr: endOfCalls}) {
		data, _ = binary.Append(data, le, e)
	}
	data = append(data, make([]byte, int(c.base-dataAddress)-len(data))...)
	data = append(data, c.data...)

	out := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	out = le.AppendUint16(out, 2) // ET_EXEC
	out = le.AppendUint16(out, elfMachine)
	out = le.AppendUint32(out, 1)
	out = le.AppendUint64(out, codeAddress+headersSize)
	out = le.AppendUint64(out, 64) // program headers
	out = le.AppendUint64(out, 0)
	out = le.AppendUint32(out, 0)
	for _, n := range []uint16{64, 56, 2, 0, 0, 0} {
		out = le.AppendUint16(out, n)
	}
	segment := func(flags uint32, offset, address, size uint64) {
		out = le.AppendUint32(out, 1) // PT_LOAD
		out = le.AppendUint32(out, flags)
		for _, n := range []uint64{offset, address, address, size, size, pageSize} {
			out = le.AppendUint64(out, n)
		}
	}
	const executable, writable, readable = 1, 2, 4
	segment(readable|executable, 0, codeAddress, uint64(headersSize+len(code)))
	segment(readable|writable, pageSize, dataAddress, uint64(len(data)))
	out = append(out, code...)
	out = append(out, make([]byte, pageSize-len(out))...)
	return append(out, data...)
}

// becomeMapped is become for a container with a user namespace, a time namespace of
// somebody else, or somebody to ask about its calls.
func (s *stager) becomeMapped() error {
	code := callLoop(control)
	if code == nil {
		return fmt.Errorf("user namespaces: %w", syscall.ENOSYS)
	}
	keep := []int{control}
	for _, fd := range []int{s.time, s.user, s.agent} {
		if fd >= 0 {
			keep = append(keep, fd)
		}
	}
	if s.labelsLater() {
		proc, err := s.procfs()
		if err != nil {
			return err
		}
		keep = append(keep, proc)
	}
	c, err := s.lastCalls()
	if err != nil {
		return err
	}
	fd, err := memfd("sampan-enter", c.elf(code))
	if err != nil {
		return err
	}
	for _, kept := range keep {
		if _, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(kept), syscall.F_SETFD, 0); e != 0 {
			return fmt.Errorf("keep descriptor %d: %w", kept, e)
		}
	}
	argv := []uintptr{cstr("sampan-enter"), 0}
	envv := []uintptr{0}
	_, _, e := syscall.RawSyscall6(sysExecveat, uintptr(fd), cstr(""),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), atEmptyPath, 0)
	return fmt.Errorf("enter user namespace: %w", e)
}

// adder appends a call to a list.
type adder = func(what string, nr uintptr, args ...uint64)

// lastCalls is what become does, as a list.
func (s *stager) lastCalls() (*calls, error) {
	p := &s.p.Process
	c := newCalls()
	var failed error
	add := func(what string, nr uintptr, args ...uint64) {
		if err := c.add(what, 128, nr, args...); err != nil {
			failed = err
		}
	}
	add("stay opaque", syscall.SYS_PRCTL, prSetDumpable, 0)
	add("close the control socket on exec", syscall.SYS_FCNTL, uint64(control), syscall.F_SETFD, syscall.FD_CLOEXEC)
	if s.agent >= 0 {
		add("close the listener's socket on exec", syscall.SYS_FCNTL, uint64(s.agent), syscall.F_SETFD, syscall.FD_CLOEXEC)
	}
	s.addLabels(c, add)
	if s.time >= 0 {
		add("enter time namespace", sysSetns, uint64(s.time), cloneNewtime)
		add("close", syscall.SYS_CLOSE, uint64(s.time))
	}
	own := getOwn()
	if s.user >= 0 {
		add("enter user namespace", sysSetns, uint64(s.user), syscall.CLONE_NEWUSER)
		add("close", syscall.SYS_CLOSE, uint64(s.user))
		if s.p.Kind == plan.Init {
			// Mounts made by the host's root are not the container's to change; these
			// copies are, as far as they take nothing away that hides or protects.
			add("own mount namespace", syscall.SYS_UNSHARE, syscall.CLONE_NEWNS)
			s.addShared(c, add)
		}
		own = uint64(1)<<(lastCap()+1) - 1 // entering a user namespace gives everything in it
	}
	if p.NoNewPrivs {
		add("no_new_privs", syscall.SYS_PRCTL, prSetNoNewPrivs, 1)
	} else {
		s.addSeccomp(c, add)
	}
	s.addCredentials(c, add, own)
	if p.NoNewPrivs {
		s.addSeccomp(c, add)
	}
	err := c.add("exec "+s.path, codeNotExecutable, syscall.SYS_EXECVE, c.str(s.path), c.strs(p.Args), c.strs(p.Env))
	if failed != nil {
		err = failed
	}
	return c, err
}

// addShared makes what shall be shared so once more: the copies have become slaves. What the
// container mounts there is seen in namespaces that it makes, but not on the host: to
// show others' users mounts is not the kernel's way.
func (s *stager) addShared(c *calls, add adder) {
	again := func(target string, propagation uintptr) {
		if propagation&syscall.MS_SHARED != 0 {
			add("share the mounts on "+target, syscall.SYS_MOUNT, c.str(""), c.str(target), c.str(""), uint64(propagation), 0)
		}
	}
	again("/", s.p.Root.Propagation)
	for i := range s.p.Mounts {
		for _, p := range s.p.Mounts[i].Propagation {
			again(s.p.Mounts[i].Target, p)
		}
	}
}

func (s *stager) addSeccomp(c *calls, add adder) {
	code := s.p.Process.Seccomp
	if len(code) == 0 {
		return
	}
	const setModeFilter = 1
	prog := binary.LittleEndian.AppendUint64(nil, uint64(len(code)/8))
	prog = binary.LittleEndian.AppendUint64(prog, c.put(code))
	add("load seccomp filter", sysSeccomp, setModeFilter, uint64(s.p.Process.SeccompFlags), c.put(prog))
	s.addListener(c, add)
}

func (s *stager) addCredentials(c *calls, add adder, own uint64) {
	p := &s.p.Process
	last := lastCap()
	caps := p.Caps
	if caps == nil {
		caps = &plan.Caps{Bounding: ^uint64(0), Effective: own, Permitted: own}
	}
	for n := range last + 1 {
		if caps.Bounding&(1<<n) == 0 {
			add("drop bounding capability", syscall.SYS_PRCTL, prCapbsetDrop, n)
		}
	}
	add("keep capabilities", syscall.SYS_PRCTL, prSetKeepcaps, 1)
	var groups []byte
	for _, g := range p.Groups {
		groups = binary.LittleEndian.AppendUint32(groups, uint32(g))
	}
	add("setgroups", syscall.SYS_SETGROUPS, uint64(len(p.Groups)), c.put(groups))
	gid, uid := uint64(p.GID), uint64(p.UID)
	add("setgid", syscall.SYS_SETRESGID, gid, gid, gid)
	add("setuid", syscall.SYS_SETRESUID, uid, uid, uid)
	add("keep capabilities", syscall.SYS_PRCTL, prSetKeepcaps, 0)
	header := binary.LittleEndian.AppendUint64(nil, capVersion3)
	var data []byte
	for _, shift := range []int{0, 32} {
		for _, set := range []uint64{caps.Effective & own, caps.Permitted & own, caps.Inheritable & own} {
			data = binary.LittleEndian.AppendUint32(data, uint32(set>>shift))
		}
	}
	add("set capabilities", syscall.SYS_CAPSET, c.put(header), c.put(data))
	add("clear ambient capabilities", syscall.SYS_PRCTL, prCapAmbient, ambientClearAll)
	for n := range last + 1 {
		if caps.Ambient&own&(1<<n) != 0 {
			add("raise ambient capability", syscall.SYS_PRCTL, prCapAmbient, ambientRaise, n)
			c.list[len(c.list)-1].Flags = mayFail // not inheritable: as with other runtimes, it is not given
		}
	}
}

// getOwn are the capabilities that this process could give.
func getOwn() uint64 {
	own, err := getCaps()
	if err != nil {
		return 0
	}
	return own
}

// lastCap is the kernel's last capability, asked of the kernel itself.
func lastCap() uint64 {
	const prCapbsetRead = 23
	n := uint64(0)
	for n < 63 && !errors.Is(prctl(prCapbsetRead, uintptr(n+1), 0), syscall.EINVAL) {
		n++
	}
	return n
}

// memfd puts bytes into an unnamed file.
func memfd(name string, b []byte) (int, error) {
	const cloexec = 1
	at, err := syscall.BytePtrFromString(name) // not cstr, which remembers it: the keeper lives on
	if err != nil {
		return -1, err
	}
	fd, _, e := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(at)), cloexec, 0)
	if e != 0 {
		return -1, os.NewSyscallError("memfd_create", e)
	}
	if n, err := syscall.Write(int(fd), b); err != nil || n != len(b) {
		syscall.Close(int(fd))
		return -1, fmt.Errorf("write %d bytes of %q: %w", len(b), name, err)
	}
	return int(fd), nil
}
