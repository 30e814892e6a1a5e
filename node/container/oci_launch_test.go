package container

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A program that is executed by the number of its descriptor is found, wherever its
// files and the descriptors of the fork come to lie.
func TestOutOfTheWay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the program is built for root's tests only")
	}
	exe, err := inMemory("probe", built.keeper)
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	// Two low numbers will be free for the pipe, and none up to the highest file.
	low := fill(t, null, 3, 2)
	taken := fill(t, null, 9, 30)
	defer closeAll(taken)
	files := taken[len(taken)-6:]
	self, err := outOfTheWay(exe, files)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	closeAll(low)
	pid, err := syscall.ForkExec("/proc/self/fd/"+itoa(self), []string{"sampan-keeper", "nothing"}, &syscall.ProcAttr{Dir: "/", Files: files})
	if err != nil {
		t.Fatalf("files %v, program %d: %v", files, self, err)
	}
	killChild(pid)
}

// fill duplicates a file n times, to the lowest numbers from one on.
func fill(t *testing.T, f *os.File, from, n int) []uintptr {
	t.Helper()
	var out []uintptr
	for range n {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, from)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, uintptr(fd))
	}
	return out
}

func closeAll(fds []uintptr) {
	for _, fd := range fds {
		unix.Close(int(fd))
	}
}
