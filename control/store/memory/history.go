package memory

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/tidwall/btree"

	"github.com/sampan-dev/sampan/control/store"
)

// List implements store.Store. It holds the lock only to take a copy.
func (s *Store) List(ctx context.Context, prefix string, opts store.ListOptions) (store.Listing, error) {
	tree, revision, err := s.at(ctx, opts.Revision)
	if err != nil {
		return store.Listing{}, fmt.Errorf("list %q: %w", prefix, err)
	}
	listing := store.Listing{Revision: revision}
	tree.Ascend(max(prefix, opts.From), func(key string, entry *store.Entry) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		if opts.Limit > 0 && len(listing.Entries) == opts.Limit {
			listing.Remaining++
			return true
		}
		listing.Entries = append(listing.Entries, *entry)
		return true
	})
	listing.More = listing.Remaining > 0
	return listing, nil
}

// at returns the state as a revision left it (0: the present one) as a tree that
// nobody changes any more.
func (s *Store) at(ctx context.Context, revision int64) (*btree.Map[string, *store.Entry], int64, error) {
	if err := s.enter(ctx); err != nil {
		return nil, 0, err
	}
	defer s.mu.Unlock()
	switch {
	case revision > s.revision:
		return nil, 0, fmt.Errorf("revision %d, now at %d: %w", revision, s.revision, store.ErrFuture)
	case revision != 0 && revision < s.floor:
		return nil, 0, fmt.Errorf("revision %d, kept since %d: %w", revision, s.floor, store.ErrCompacted)
	}
	if s.frozen == nil {
		s.frozen = s.present.IsoCopy()
	}
	if revision == 0 || revision == s.revision {
		return s.frozen, s.revision, nil
	}
	past := s.frozen.IsoCopy()
	for i := len(s.log) - 1; i >= s.after(revision); i-- {
		event := &s.log[i]
		if event.Previous == nil {
			past.Delete(event.Entry.Key)
			continue
		}
		past.Set(event.Entry.Key, event.Previous)
	}
	return past, revision, nil
}

// after is the index of the first logged event above revision. The lock is held.
func (s *Store) after(revision int64) int {
	return sort.Search(len(s.log), func(i int) bool { return s.log[i].Entry.Revision > revision })
}

// record logs an event and tells who waits for it. The lock is held.
func (s *Store) record(event store.Event) {
	s.log = append(s.log, event)
	for w := range s.watchers {
		w.notice(event)
	}
	// Twice the history before half is dropped: copying costs nothing per event.
	if len(s.log) >= 2*s.history {
		s.forget(s.log[len(s.log)-s.history].Entry.Revision)
	}
}

// Compact implements store.Store.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	if err := s.enter(ctx); err != nil {
		return fmt.Errorf("compact at %d: %w", rev, err)
	}
	defer s.mu.Unlock()
	switch {
	case rev > s.revision:
		return fmt.Errorf("compact at %d, now at %d: %w", rev, s.revision, store.ErrFuture)
	case rev <= s.floor:
		return fmt.Errorf("compact at %d, kept since %d: %w", rev, s.floor, store.ErrCompacted)
	}
	s.forget(rev)
	return nil
}

// forget raises the floor to rev. The lock is held.
func (s *Store) forget(rev int64) {
	s.floor = rev
	kept := s.log[s.after(rev-1):]
	s.log = append(make([]store.Event, 0, max(len(kept), s.history/8)), kept...)
	for w := range s.watchers {
		if w.pending && w.cursor+1 < s.floor {
			w.wakeUp() // to learn that it is too late
		}
	}
}
