// Package clock tells of the moments at which the wall clock jumps: somebody set it, or the
// machine slept. A wait until a time of day is a duration to Go, which knows of neither, and
// ends too late by as much.
package clock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Jumps tells those who wait of each jump. The nil Jumps never tells of any, as suits tests
// whose time is false.
type Jumps struct {
	mu   sync.Mutex
	next chan struct{}
}

// Next is closed at the next jump. Who has seen it closed asks for another before looking
// at the clock, and so misses none.
func (j *Jumps) Next() <-chan struct{} {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.next == nil {
		j.next = make(chan struct{})
	}
	return j.next
}

// Tell tells everybody.
func (j *Jumps) Tell() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.next != nil {
		close(j.next)
		j.next = nil
	}
}

// Run follows the kernel's clock until ctx ends. It costs nothing while nothing jumps.
func (j *Jumps) Run(ctx context.Context) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("follow the clock: %w", err)
	}
	timer := os.NewFile(uintptr(fd), "clock") // its descriptor does not block: closing it ends a read
	defer timer.Close()
	defer context.AfterFunc(ctx, func() { timer.Close() })()
	for {
		if err := arm(timer); err != nil && ctx.Err() == nil {
			return err
		}
		var times [8]byte
		_, err := timer.Read(times[:])
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, unix.ECANCELED): // the clock was set
			j.Tell()
		case err != nil:
			return fmt.Errorf("follow the clock: %w", err)
		}
	}
}

// arm has the kernel cancel a timer, which would otherwise end in a far year, when the
// clock is set. The timer may be closed meanwhile: its number may be another file's by then,
// and so it is used only while the file is held open.
func arm(timer *os.File) error {
	raw, err := timer.SyscallConn()
	if err != nil {
		return fmt.Errorf("follow the clock: %w", err)
	}
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: 1 << 40}}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil)
	})
	if errors.Is(failed, unix.ECANCELED) {
		failed = nil
	}
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("follow the clock: %w", err)
	}
	return nil
}

type key struct{}

// With gives everybody below ctx the jumps.
func With(ctx context.Context, j *Jumps) context.Context { return context.WithValue(ctx, key{}, j) }

// From is what With gave; nil when nobody follows the clock.
func From(ctx context.Context) *Jumps {
	j, _ := ctx.Value(key{}).(*Jumps)
	return j
}
