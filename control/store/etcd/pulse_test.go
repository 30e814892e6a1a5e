package etcd

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// A disk that stands still is told of by the deadline, and felt by one goroutine; one that
// is well is not felt more often than once a second.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var beats atomic.Int64
		thaw, says := make(chan struct{}), error(nil)
		close(thaw)
		p := newPulse(func() error { beats.Add(1); <-thaw; return says }, func() error { return nil })
		feel := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			return p.feel(ctx)
		}
		for range 10 {
			if err := feel(); err != nil {
				t.Error(err)
			}
		}
		if n := beats.Swap(0); n != 1 {
			t.Errorf("%d writes in a moment", n)
		}
		time.Sleep(pulseEvery)
		thaw = make(chan struct{})
		for range 3 {
			if err := feel(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a frozen disk: %v", err)
			}
		}
		if n := beats.Swap(0); n != 1 {
			t.Errorf("%d goroutines wait for a frozen disk", n)
		}
		close(thaw)
		synctest.Wait()
		if err := feel(); err != nil {
			t.Errorf("after the thaw: %v", err)
		}
		time.Sleep(pulseEvery)
		if says = unix.EIO; !errors.Is(feel(), unix.EIO) {
			t.Error("a broken disk is well")
		}
		if says = unix.ENOSPC; feel() != nil {
			t.Error("a full disk is not well")
		}
	})
}

// The disk of a directory is well, and the file by which it was tried is not seen.
func TestPulseOfADirectory(t *testing.T) {
	dir := t.TempDir()
	p, err := openPulse(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.feel(t.Context()), p.close()); err != nil {
		t.Error(err)
	}
}
