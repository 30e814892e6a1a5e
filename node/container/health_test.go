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
	for wait := b.context(); ; { // its threads stop one by one
		stat, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
		if err != nil || wait.Err() != nil {
			t.Fatalf("it does not stop: %q, %v", stat, err)
		}
		if strings.Contains(string(stat), ") T ") {
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
	for wait := b.context(); ; { // the first may meet the one that is dying
		err := b.Check(wait)
		if err == nil {
			break
		}
		if wait.Err() != nil {
			t.Fatalf("no successor: %v", err)
		}
	}
	if now := b.keeperPID(); now == pid {
		t.Errorf("keeper %d is still there", pid)
	}
}
