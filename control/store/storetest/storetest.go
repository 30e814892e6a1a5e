// Package storetest is the exam that every store.Store has to pass.
//
// It uses real time only to bound waits and for expiry; run it inside
// testing/synctest where the store allows.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/control/store"
)

// patience bounds every wait of the exam; a store that needs longer has failed.
const patience = 2 * time.Minute

// Run examines the stores that open returns. Each part of the exam opens its
// own, empty one; open arranges for it to be closed when its test ends.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	parts := []struct {
		name string
		exam func(*exam)
	}{
		{"Write", write},
		{"WriteRefused", writeRefused},
		{"List", list},
		{"ListPages", listPages},
		{"ListPast", listPast},
		{"Large", large},
		{"Watch", watch},
		{"WatchFromThePast", watchFromThePast},
		{"WatchFromTheFuture", watchFromTheFuture},
		{"WatchOnlyItsPrefix", watchOnlyItsPrefix},
		{"WatchEnds", watchEnds},
		{"Progress", progress},
		{"Compact", compact},
		{"Expire", expire},
		{"ExpiryReplaced", expiryReplaced},
		{"Race", race},
		{"Burst", burst},
		{"Cancelled", cancelled},
		{"Close", closing},
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			part.exam(&exam{T: t, ctx: ctx, s: open(t)})
		})
	}
}

// exam is one part under way: a store and the wishes the parts have in common.
type exam struct {
	*testing.T
	ctx context.Context
	s   store.Store
}

func (e *exam) create(key, value string) int64 {
	e.Helper()
	rev, err := e.s.Create(e.ctx, key, []byte(value), 0)
	if err != nil {
		e.Fatal(err)
	}
	return rev
}

func (e *exam) update(key, value string, expected int64) int64 {
	e.Helper()
	rev, err := e.s.Update(e.ctx, key, []byte(value), expected, 0)
	if err != nil {
		e.Fatal(err)
	}
	return rev
}

func (e *exam) delete(key string, expected int64) int64 {
	e.Helper()
	rev, err := e.s.Delete(e.ctx, key, expected)
	if err != nil {
		e.Fatal(err)
	}
	return rev
}

func (e *exam) get(key string) (store.Entry, int64) {
	e.Helper()
	entry, rev, err := e.s.Get(e.ctx, key)
	if err != nil {
		e.Fatal(err)
	}
	return entry, rev
}

func (e *exam) list(prefix string, opts store.ListOptions) store.Listing {
	e.Helper()
	listing, err := e.s.List(e.ctx, prefix, opts)
	if err != nil {
		e.Fatal(err)
	}
	return listing
}

func (e *exam) watch(prefix string, after int64) store.Watcher {
	e.Helper()
	w, err := e.s.Watch(e.ctx, prefix, after)
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(w.Stop)
	return w
}

// fails reports an error that is not of the wanted kind.
func (e *exam) fails(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("got error %v, want %v", err, want)
	}
}

// seen reads events until there are n, progress left out, and describes them.
func (e *exam) seen(w store.Watcher, n int) []string {
	e.Helper()
	var told []string
	last := int64(0)
	for len(told) < n {
		batch, err := w.Next(e.ctx)
		if err != nil {
			e.Fatalf("after %q: %v", told, err)
		}
		if len(batch) == 0 {
			e.Fatal("an empty batch")
		}
		for _, event := range batch {
			if event.Entry.Revision < last {
				e.Fatalf("revision %d after %d", event.Entry.Revision, last)
			}
			last = event.Entry.Revision
			if event.Type != store.Progress {
				told = append(told, describe(event))
			}
		}
	}
	return told
}

// sees compares the next events with the wanted ones.
func (e *exam) sees(w store.Watcher, want ...string) {
	e.Helper()
	if got := e.seen(w, len(want)); !slices.Equal(got, want) {
		e.Errorf("watched\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// describe tells an event in one line: "put /a/x=1 @5", with the previous value
// and revision in brackets.
func describe(event store.Event) string {
	line := fmt.Sprintf("put %s=%s @%d", event.Entry.Key, event.Entry.Value, event.Entry.Revision)
	if event.Type == store.Delete {
		line = fmt.Sprintf("delete %s @%d", event.Entry.Key, event.Entry.Revision)
		if event.Entry.Value != nil {
			line += " with a value"
		}
	}
	if event.Previous != nil {
		line += fmt.Sprintf(" [%s @%d]", event.Previous.Value, event.Previous.Revision)
	}
	return line
}

// told lists entries in one line: "/a/x=1@5 /a/y=2@6".
func told(entries []store.Entry) string {
	words := make([]string, 0, len(entries))
	for _, entry := range entries {
		words = append(words, fmt.Sprintf("%s=%s@%d", entry.Key, entry.Value, entry.Revision))
	}
	return strings.Join(words, " ")
}
