package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sampan-dev/sampan/control/store"
)

func watch(e *exam) {
	w := e.watch("/a/", 1)
	x := e.create("/a/x", "1")
	e.sees(w, "put /a/x=1 @2")
	x = e.update("/a/x", "2", x)
	e.create("/a/y", "1")
	e.delete("/a/x", x)
	e.create("/a/x", "3")
	e.sees(w,
		"put /a/x=2 @3 [1 @2]",
		"put /a/y=1 @4",
		"delete /a/x @5 [2 @3]",
		"put /a/x=3 @6")
}

func watchFromThePast(e *exam) {
	x := e.create("/a/x", "1")
	x = e.update("/a/x", "2", x)
	e.delete("/a/x", x)
	w, all := e.watch("/a/", x), e.watch("/a/", 0)
	e.create("/a/x", "3")
	e.sees(w, "delete /a/x @4 [2 @3]", "put /a/x=3 @5")
	e.sees(all, "put /a/x=1 @2", "put /a/x=2 @3 [1 @2]", "delete /a/x @4 [2 @3]", "put /a/x=3 @5")
}

func watchFromTheFuture(e *exam) {
	w := e.watch("/a/", 3)
	for i := range 4 {
		e.create(fmt.Sprintf("/a/%d", i), "")
	}
	e.sees(w, "put /a/2= @4", "put /a/3= @5")
}

func watchOnlyItsPrefix(e *exam) {
	w := e.watch("/a/", 1)
	for _, key := range []string{"/ab", "/b/x", "/a", "/a/x", "/c", "/a/y"} {
		e.create(key, "")
	}
	e.sees(w, "put /a/x= @5", "put /a/y= @7")
}

func watchEnds(e *exam) {
	cause := errors.New("the reader left")
	ctx, cancel := context.WithCancelCause(e.ctx)
	w, err := e.s.Watch(ctx, "/a/", 1)
	if err != nil {
		e.Fatal(err)
	}
	defer w.Stop()
	stopped := e.watch("/a/", 1)
	short, cancelShort := context.WithCancelCause(e.ctx)
	cancelShort(cause)
	_, err = stopped.Next(short)
	e.fails(err, cause)
	time.AfterFunc(50*time.Millisecond, func() {
		cancel(cause)
		stopped.Stop()
	})
	for range 2 { // and it stays failed
		_, err = w.Next(e.ctx)
		e.fails(err, cause)
		_, err = stopped.Next(e.ctx)
		e.fails(err, store.ErrClosed)
	}
	stopped.Stop()
}

// progress: a progress event never overtakes an event, and tells the revision
// that writes to other keys have reached.
func progress(e *exam) {
	w := e.watch("/a/", 1)
	e.create("/a/x", "1")
	last := e.create("/b/y", "1")
	e.sees(w, "put /a/x=1 @2")
	for round := range 3 {
		if err := w.RequestProgress(e.ctx); err != nil {
			e.Fatal(err)
		}
		e.progressTo(w, last)
		last = e.create(fmt.Sprintf("/b/%d", round), "")
	}
}

// progressTo reads until a progress event tells revision or later.
func (e *exam) progressTo(w store.Watcher, revision int64) {
	e.Helper()
	for {
		batch, err := w.Next(e.ctx)
		if err != nil {
			e.Fatalf("waiting for progress to %d: %v", revision, err)
		}
		for _, event := range batch {
			if event.Type != store.Progress {
				e.Fatalf("unexpected: %s", describe(event))
			}
			if event.Entry.Revision >= revision {
				return
			}
		}
	}
}

func compact(e *exam) {
	x := e.create("/a/x", "0")
	for i := range 5 {
		x = e.update("/a/x", fmt.Sprint(i+1), x)
	}
	quiet := e.watch("/quiet/", x)
	if err := e.s.Compact(e.ctx, 5); err != nil {
		e.Fatal(err)
	}
	_, err := e.s.List(e.ctx, "/a/", store.ListOptions{Revision: 4})
	e.fails(err, store.ErrCompacted)
	if listing := e.list("/a/", store.ListOptions{Revision: 5}); told(listing.Entries) != "/a/x=3@5" {
		e.Errorf("at the compacted revision: %s", told(listing.Entries))
	}
	e.fails(e.compacted("/a/", 2), store.ErrCompacted)
	e.sees(e.watch("/a/", 5), "put /a/x=4 @6 [3 @5]", "put /a/x=5 @7 [4 @6]")
	e.fails(e.s.Compact(e.ctx, 5), store.ErrCompacted)
	e.fails(e.s.Compact(e.ctx, 8), store.ErrFuture)

	// A watcher that has everything is not hurt by compaction.
	if err := e.s.Compact(e.ctx, 7); err != nil {
		e.Fatal(err)
	}
	e.create("/quiet/x", "")
	e.sees(quiet, "put /quiet/x= @8")
}

// compacted is the error that a watch from after meets, at once or when read.
func (e *exam) compacted(prefix string, after int64) error {
	w, err := e.s.Watch(e.ctx, prefix, after)
	if err != nil {
		return err
	}
	defer w.Stop()
	_, err = w.Next(e.ctx)
	return err
}

// burst: many writes come through a watch whole, in order, with any batching.
func burst(e *exam) {
	const writes = 2500
	w := e.watch("/a/", 1)
	want := make([]string, 0, writes)
	for i := range writes {
		rev := e.create(fmt.Sprintf("/a/%d", i), "")
		want = append(want, fmt.Sprintf("put /a/%d= @%d", i, rev))
	}
	if got := e.seen(w, writes); !slices.Equal(got, want) {
		e.Errorf("%d events differ from the %d writes", len(got), writes)
	}
}
