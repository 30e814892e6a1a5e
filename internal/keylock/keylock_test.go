package keylock

import (
	"sync"
	"testing"
)

func TestOneHolderAKey(t *testing.T) {
	var l Locks
	counts := map[string]*int{"a": new(int), "b": new(int)}
	var wg sync.WaitGroup
	for range 200 {
		for key, n := range counts {
			wg.Go(func() {
				defer l.Lock(key)()
				*n++ // lost updates show as a wrong total, and as a race
			})
		}
	}
	wg.Wait()
	if *counts["a"] != 200 || *counts["b"] != 200 {
		t.Fatalf("counted %d and %d, want 200 each", *counts["a"], *counts["b"])
	}
	if len(l.held) != 0 {
		t.Fatalf("%d keys stay in memory", len(l.held))
	}
}

func TestKeysAreIndependent(t *testing.T) {
	var l Locks
	unlock := l.Lock("a")
	l.Lock("b")() // would deadlock if keys shared a mutex
	unlock()
}
