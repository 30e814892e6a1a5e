package memory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/control/store/storetest"
)

func open(t *testing.T, cfg memory.Config) *memory.Store {
	s := memory.New(cfg)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestExam(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, memory.Config{}) })
}

// An hour of life passes in no time inside a bubble.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, memory.Config{})
		if _, err := s.Create(t.Context(), "/event", nil, time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		synctest.Wait()
		if _, _, err := s.Get(t.Context(), "/event"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if _, _, err := s.Get(t.Context(), "/event"); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("after its hour: %v", err)
		}
	})
}

// A watcher that does not read is left behind by a bounded history; one with
// nothing to read is not.
func TestSlowWatcher(t *testing.T) {
	const history = 100
	s := open(t, memory.Config{History: history})
	slow, err := s.Watch(t.Context(), "/a/", 1)
	if err != nil {
		t.Fatal(err)
	}
	idle, err := s.Watch(t.Context(), "/b/", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Next(done(t)); err == nil {
		t.Fatal("the idle watcher saw something")
	}
	for i := range 3 * history {
		if _, err := s.Create(t.Context(), fmt.Sprintf("/a/%d", i), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := slow.Next(t.Context()); !errors.Is(err, store.ErrCompacted) {
			t.Fatalf("slow watcher: %v", err)
		}
	}
	last, err := s.Create(t.Context(), "/b/x", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	batch, err := idle.Next(t.Context())
	if err != nil || len(batch) != 1 || batch[0].Entry.Revision != last {
		t.Fatalf("idle watcher: %v, %v", batch, err)
	}
	if _, err := s.List(t.Context(), "/", store.ListOptions{Revision: 5}); !errors.Is(err, store.ErrCompacted) {
		t.Fatalf("list of a forgotten revision: %v", err)
	}
}

// done is a context that has ended, with which Next looks once.
func done(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
