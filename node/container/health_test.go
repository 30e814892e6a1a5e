package container

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A keeper that hangs is found out; when it goes on, and when it dies, all is
// well again.
func TestCheck(t *testing.T) {
	b := newBox(t)
	if err := b.Check(b.context()); err != nil {
		t.Fatal(err)
	}
	pid := b.keeperPID()
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(pid, s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	for try := 0; try < 100000; try++ { // its threads stop one by one
		if b, err := os.ReadFile("/proc/" + itoa(pid) + "/stat"); err != nil || strings.Contains(string(b), ") T ") {
			break
		}
	}
	ctx, cancel := context.WithTimeout(b.context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Check(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a keeper that hangs: %v", err)
	}
	signal(syscall.SIGCONT)
	if err := b.Check(b.context()); err != nil {
		t.Errorf("a keeper that goes on: %v", err)
	}
	signal(syscall.SIGKILL)
	for try := 0; ; try++ { // the first may meet the one that is dying
		err := b.Check(b.context())
		if err == nil {
			break
		}
		if try == 1000 {
			t.Fatalf("no successor: %v", err)
		}
	}
	if now := b.keeperPID(); now == pid {
		t.Errorf("keeper %d is still there", pid)
	}
}
