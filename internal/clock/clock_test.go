package clock

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Everybody who waits hears of a jump, once.
func TestTell(t *testing.T) {
	j := &Jumps{}
	ctx := With(t.Context(), j)
	a, b := From(ctx).Next(), From(ctx).Next()
	j.Tell()
	<-a
	<-b
	select {
	case <-From(ctx).Next():
		t.Error("a jump is told of twice")
	default:
	}
	if From(t.Context()).Next() != nil {
		t.Error("there are jumps where nobody follows the clock")
	}
}

// Following ends with its context. That the kernel tells of a clock that is set cannot be
// tried on a machine that others use.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- (&Jumps{}).Run(ctx) }()
	end := errors.New("enough")
	cancel(end)
	if err := <-done; !errors.Is(err, end) {
		t.Error(err)
	}
}

// A timer that is closed is not armed, whoever has its number by then.
func TestArmClosed(t *testing.T) {
	open := func() (*os.File, int) {
		fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "clock"), fd
	}
	timer, _ := open()
	if err := arm(timer); err != nil {
		t.Errorf("one that is open: %v", err)
	}
	timer.Close()
	next, fd := open() // it has the number, unless somebody else was faster
	defer next.Close()
	if err := arm(timer); err == nil {
		t.Error("one that is closed is armed")
	}
	var set unix.ItimerSpec
	if err := unix.TimerfdGettime(fd, &set); err != nil || set.Value.Sec != 0 {
		t.Errorf("another was armed: %v %v", set, err)
	}
}
