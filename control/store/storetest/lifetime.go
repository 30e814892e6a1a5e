package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/control/store"
)

// shortLife is the shortest life that stores have to honour: etcd's leases count
// whole seconds.
const shortLife = time.Second

// safeLife is as short as a life may be that is replaced in time even when the
// machine is busy with something else.
const safeLife = 5 * time.Second

func expire(e *exam) {
	w := e.watch("/a/", 1)
	start := time.Now()
	if _, err := e.s.Create(e.ctx, "/a/x", []byte("1"), shortLife); err != nil {
		e.Fatal(err)
	}
	e.create("/a/y", "1")
	if got := e.seen(w, 3); !slices.Equal(got, []string{"put /a/x=1 @2", "put /a/y=1 @3", "delete /a/x @4 [1 @2]"}) &&
		!slices.Equal(got, []string{"put /a/x=1 @2", "delete /a/x @3 [1 @2]", "put /a/y=1 @4"}) { // x had gone before there was y
		e.Errorf("saw %q", got)
	}
	if lived := time.Since(start); lived < shortLife {
		e.Errorf("expired after %v", lived)
	}
	_, _, err := e.s.Get(e.ctx, "/a/x")
	e.fails(err, store.ErrNotFound)
	e.get("/a/y")
}

// expiryReplaced: an update sets a new expiry, or none; a deleted and recreated
// key does not inherit one. The witness, written last, tells when all the others
// would have gone.
func expiryReplaced(e *exam) {
	w := e.watch("/a/", 1)
	mortal := func(key string) int64 {
		rev, err := e.s.Create(e.ctx, key, []byte("1"), safeLife)
		if err != nil {
			e.Fatal(err)
		}
		return rev
	}
	e.update("/a/kept", "2", mortal("/a/kept"))
	if _, err := e.s.Update(e.ctx, "/a/longer", []byte("2"), mortal("/a/longer"), time.Hour); err != nil {
		e.Fatal(err)
	}
	e.delete("/a/again", mortal("/a/again"))
	e.create("/a/again", "2")
	mortal("/a/witness")
	e.seen(w, 8)
	e.sees(w, "delete /a/witness @10 [1 @9]")
	if got, want := told(e.list("/a/", store.ListOptions{}).Entries), "/a/again=2@8 /a/kept=2@3 /a/longer=2@5"; got != want {
		e.Errorf("left are %s\nwant     %s", got, want)
	}
}

// race: concurrent increments by compare-and-swap lose nothing, and a watcher
// sees each exactly once.
func race(e *exam) {
	const writers, rounds = 8, 25
	w := e.watch("/a/", 1)
	e.create("/a/counter", "0")
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range rounds {
				if err := increment(e.ctx, e.s, "/a/counter"); err != nil {
					e.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if entry, _ := e.get("/a/counter"); string(entry.Value) != strconv.Itoa(writers*rounds) {
		e.Fatalf("counted to %s, want %d", entry.Value, writers*rounds)
	}
	for i, line := range e.seen(w, writers*rounds+1) {
		want := fmt.Sprintf("put /a/counter=%d @%d", i, i+2)
		if i > 0 {
			want += fmt.Sprintf(" [%d @%d]", i-1, i+1)
		}
		if line != want {
			e.Fatalf("event %d is %q, want %q", i, line, want)
		}
	}
}

func increment(ctx context.Context, s store.Store, key string) error {
	for {
		entry, _, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(entry.Value))
		if err != nil {
			return err
		}
		_, err = s.Update(ctx, key, strconv.AppendInt(nil, int64(n+1), 10), entry.Revision, 0)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func cancelled(e *exam) {
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	_, err := e.s.Create(ctx, "/a/x", nil, 0)
	e.fails(err, context.Canceled)
	_, _, err = e.s.Get(ctx, "/a/x")
	e.fails(err, context.Canceled)
	_, err = e.s.List(ctx, "/a/", store.ListOptions{})
	e.fails(err, context.Canceled)
	if now, err := e.s.Revision(e.ctx); err != nil || now != 1 {
		e.Errorf("cancelled calls left revision %d, %v", now, err)
	}
}

func closing(e *exam) {
	w := e.watch("/a/", 1)
	rev := e.create("/a/x", "1")
	e.sees(w, "put /a/x=1 @2")
	closed := make(chan error, 1)
	time.AfterFunc(50*time.Millisecond, func() { closed <- e.s.Close() })
	_, err := w.Next(e.ctx)
	e.fails(err, store.ErrClosed)
	if err := <-closed; err != nil {
		e.Fatal(err)
	}
	_, _, err = e.s.Get(e.ctx, "/a/x")
	e.fails(err, store.ErrClosed)
	_, err = e.s.Create(e.ctx, "/a/y", nil, 0)
	e.fails(err, store.ErrClosed)
	_, err = e.s.Update(e.ctx, "/a/x", nil, rev, 0)
	e.fails(err, store.ErrClosed)
	_, err = e.s.Delete(e.ctx, "/a/x", rev)
	e.fails(err, store.ErrClosed)
	_, err = e.s.List(e.ctx, "/a/", store.ListOptions{})
	e.fails(err, store.ErrClosed)
	_, err = e.s.Watch(e.ctx, "/a/", 0)
	e.fails(err, store.ErrClosed)
	_, err = e.s.Revision(e.ctx)
	e.fails(err, store.ErrClosed)
	e.fails(e.s.Compact(e.ctx, rev), store.ErrClosed)
	if err := e.s.Close(); err != nil {
		e.Errorf("closed twice: %v", err)
	}
}
