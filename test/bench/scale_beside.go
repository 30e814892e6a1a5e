package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// besideEvery is how often the machine is asked how it is.
const besideEvery = 100 * time.Millisecond

// beside is what the machine itself was like meanwhile, for a server that waits for a
// disk or a processor which others have can't answer: how long 4 KiB took to be safe on
// the disk that the server uses, and how late a timer was.
type beside struct {
	mu         sync.Mutex
	disk, late []time.Duration // since they were told last
}

// watch asks until ctx ends. The file that it writes to is dir's.
func (b *beside) watch(ctx context.Context, dir string) error {
	f, err := os.CreateTemp(dir, "beside")
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 4096)
	for next := time.Now().Add(besideEvery); pause(ctx, time.Until(next)) == nil; next = time.Now().Add(besideEvery) {
		woken := time.Now()
		if _, err := f.WriteAt(block, 0); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		b.mu.Lock()
		b.late, b.disk = append(b.late, woken.Sub(next)), append(b.disk, time.Since(woken))
		b.mu.Unlock()
	}
	return nil
}

// tell says what it was like since it was asked last.
func (b *beside) tell() row {
	b.mu.Lock()
	defer b.mu.Unlock()
	told := row{"  a write of 4 KiB beside, how late a timer was: p50, p99 and worst", ordered(b.disk) + "; " + ordered(b.late), ""}
	b.disk, b.late = nil, nil
	return told
}

func ordered(all []time.Duration) string {
	if len(all) == 0 {
		return "not measured"
	}
	slices.Sort(all)
	at := func(part float64) time.Duration {
		return all[int(part*float64(len(all)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("%v, %v, %v", at(0.5), at(0.99), at(1))
}
