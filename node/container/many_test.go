package container

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Many containers at once, twice; afterwards the keeper comes to hold no more
// descriptors than before.
func TestMany(t *testing.T) {
	b := newBox(t)
	b.sandbox(SandboxConfig{ID: "pod"})
	fds := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.keeperPID()))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	round := func() {
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				id := fmt.Sprintf("c%d", i)
				cfg := b.config(id, probeSpec("echo", id, ";", "exit", itoa(i)))
				cfg.SandboxID = "pod"
				s, out := b.run(cfg)
				if s.ExitCode != i || out != "stdout F "+id+"\n" {
					t.Errorf("%s: %+v %q", id, s, out)
				}
				if err := b.Remove(b.context(), id); err != nil {
					t.Error(err)
				}
				if err := os.Remove(cfg.LogPath); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	round()
	before := fds()
	round()
	// It closes its end of a call after the answer: what goes on growing is a leak.
	for ctx, after := b.context(), fds(); after > before; after = fds() {
		if ctx.Err() != nil {
			t.Fatalf("the keeper had %d descriptors and has %d", before, after)
		}
	}
}
