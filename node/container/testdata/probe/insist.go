package main

import (
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// insist writes ever greater numbers to a file. A timer sends SIGCONT every millisecond.
func insist(path string) {
	const clockMonotonic = 1
	event := [64]byte{}
	*(*int32)(unsafe.Pointer(&event[8])) = int32(syscall.SIGCONT) // sigev_signo; SIGEV_SIGNAL is 0
	var timer int32
	if _, _, e := syscall.Syscall(syscall.SYS_TIMER_CREATE, clockMonotonic, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&timer))); e != 0 {
		fatal("timer_create", e)
	}
	every := [2]syscall.Timespec{{Nsec: int64(time.Millisecond)}, {Nsec: int64(time.Millisecond)}}
	if _, _, e := syscall.Syscall6(syscall.SYS_TIMER_SETTIME, uintptr(timer), 0, uintptr(unsafe.Pointer(&every)), 0, 0, 0); e != 0 {
		fatal("timer_settime", e)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		fatal("open", err)
	}
	for n := 1; ; n++ {
		if _, err := f.WriteAt([]byte(strconv.Itoa(n)), 0); err != nil {
			fatal("write", err)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

func fatal(what string, err error) {
	_, _ = os.Stderr.WriteString(what + ": " + err.Error() + "\n")
	os.Exit(1)
}
