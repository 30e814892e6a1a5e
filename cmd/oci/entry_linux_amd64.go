package main

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These are no functions: they have the stack that the kernel gives them. The name of
// entry is the linker's to use. See entry_linux_amd64.s.
func entry()
func caught()
func back()

var _ = [...]func(){entry, caught, back}

// handler gives the addresses of a handler of signals, and of where it returns to.
func handler() (catch, back uintptr)

// caughtPipe is where the handler writes to.
var caughtPipe int32 //nolint:gochecknoglobals,unused // caught reads it; dispositions are the process's

// catch makes signals, instead of ending the process or going to Go, write their
// number into a pipe, whose other end it gives. A child has none of that once it
// executes its program.
func catch(all []os.Signal) (pipe int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, os.NewSyscallError("pipe2", err)
	}
	caughtPipe = int32(ends[1])
	const onStack, restart, restorer = 0x08000000, 0x10000000, 0x04000000
	act := struct{ handler, flags, restorer, mask uintptr }{flags: onStack | restart | restorer, mask: ^uintptr(0)}
	act.handler, act.restorer = handler()
	for _, s := range all {
		_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s.(syscall.Signal)), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
		if e != 0 {
			return -1, os.NewSyscallError("rt_sigaction", e)
		}
	}
	return ends[0], nil
}
