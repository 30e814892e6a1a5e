package main

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
)

// A Go program has a watchdog: while anything runs, a thread that wakes every
// twenty microseconds, looks, and sleeps again. The keeper runs for a moment, many
// times a second, and the watchdog's wakings were a fifth of its processor time. So
// the kernel may wake it, and the threads that it starts, as much later as
// watchdogSlack. What a program of others would notice does not change: whoever is
// forked has the slack that the keeper was started with.

// watchdogSlack, in nanoseconds, is also how long a goroutine that waits for a disk
// may keep the others waiting.
const watchdogSlack = "500000"

// usualSlack is what the keeper was started with; zero is "nothing has been changed".
var usualSlack atomic.Uintptr //nolint:gochecknoglobals // the keeper is one process

// calmWatchdog is called once, by the first thread, before there are many.
func calmWatchdog() {
	usual, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, prGetTimerslack, 0, 0, 0, 0, 0)
	tasks, err := os.ReadDir("/proc/self/task")
	if e != 0 || usual == 0 || err != nil {
		return
	}
	usualSlack.Store(usual)
	for _, t := range tasks {
		if t.Name() != strconv.Itoa(os.Getpid()) {
			_ = writeFile("/proc/"+t.Name()+"/timerslack_ns", watchdogSlack) // it stays as it was
		}
	}
}

// spawn is syscall.ForkExec with the usual slack.
func spawn(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	if usual := usualSlack.Load(); usual != 0 {
		runtime.LockOSThread() // whose slack it inherits
		defer runtime.UnlockOSThread()
		if err := prctl(prSetTimerslack, usual, 0); err != nil {
			return 0, err
		}
	}
	return syscall.ForkExec(path, argv, attr)
}
