package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
)

// pulseEvery is how long the disk is believed to be well after it was: who asks often,
// and anybody may ask for the health, does not make it busy.
const pulseEvery = time.Second

// pulse tells whether a disk takes what is written to it, by writing to it.
type pulse struct {
	beat  func() error // writes, and waits for the disk
	close func() error
	last  atomic.Int64 // when the latest beat was over, as time since began
	began time.Time

	beating singleflight.Group
}

// openPulse makes a pulse of the disk that a directory is on, by a file without a name.
func openPulse(dir string) (*pulse, error) {
	f, err := os.CreateTemp(dir, "pulse-")
	if full(err) { // there has to be a start on a full disk, too
		return newPulse(func() error { return nil }, func() error { return nil }), nil
	}
	if err != nil {
		return nil, fmt.Errorf("make a file by which to try the disk: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make a file by which to try the disk: %w", err), f.Close())
	}
	return newPulse(func() error {
		if _, err := f.WriteAt([]byte("beat"), 0); err != nil {
			return fmt.Errorf("write to the disk of %q: %w", dir, err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return fmt.Errorf("write to the disk of %q: %w", dir, err)
		}
		return nil
	}, f.Close), nil
}

func newPulse(beat, end func() error) *pulse {
	p := &pulse{beat: beat, close: end, began: time.Now()}
	p.last.Store(int64(-pulseEvery))
	return p
}

// feel says whether the disk takes a write before ctx ends. A disk that stands still keeps
// one goroutine waiting, however many ask.
func (p *pulse) feel(ctx context.Context) error {
	if time.Since(p.began)-time.Duration(p.last.Load()) < pulseEvery {
		return nil
	}
	beat := p.beating.DoChan("", func() (any, error) {
		err := p.beat()
		if full(err) {
			err = nil // that has its own story, in which reads and deletes go on
		}
		if err == nil {
			p.last.Store(int64(time.Since(p.began)))
		}
		return nil, err
	})
	select {
	case felt := <-beat:
		return felt.Err
	case <-ctx.Done():
		return fmt.Errorf("the disk does not answer: %w", context.Cause(ctx))
	}
}

func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
