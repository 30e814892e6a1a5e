package container

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Many containers at once, twice; afterwards the keeper holds no more descriptors
// than before.
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
	if after := fds(); after > before {
		t.Errorf("the keeper had %d descriptors and has %d", before, after)
	}
}
