// Package memory is the store that lives and dies with its process: for tests,
// for simulation, and for clusters that are meant to leave nothing behind.
//
// The present is a copy-on-write B-tree; the past is the log of events that led
// to it. A listing at an old revision is a copy of the present with the younger
// events undone. The log is bounded: what falls out of it is compacted.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"github.com/sampan-dev/sampan/control/store"
)

// DefaultHistory is how many events are kept when Config says nothing: enough
// for the slowest reader of a busy test, at most some tens of megabytes.
const DefaultHistory = 1 << 16

// firstRevision is that of the empty store, as in etcd.
const firstRevision = 1

// Config is what a Store can be told.
type Config struct {
	// History is how many events are kept at least; zero means DefaultHistory.
	// A watcher that falls further behind fails with ErrCompacted.
	History int
}

// Store is a store.Store in memory. Its timers are the runtime's, so that it
// keeps virtual time inside testing/synctest.
type Store struct {
	history int
	done    chan struct{}

	// mu guards what follows. It is never held across a blocking call.
	mu       sync.Mutex
	closed   bool
	revision int64
	// floor is the oldest revision whose state can still be shown.
	floor    int64
	present  *btree.Map[string, *store.Entry]
	frozen   *btree.Map[string, *store.Entry] // a copy of present, dropped by the next write
	log      []store.Event                    // every event with a revision of floor or above
	expiries map[string]*time.Timer
	watchers map[*watcher]struct{}
}

var _ store.Store = (*Store)(nil)

// New returns an empty store. Close it to stop its timers.
func New(cfg Config) *Store {
	if cfg.History <= 0 {
		cfg.History = DefaultHistory
	}
	return &Store{
		history:  cfg.History,
		done:     make(chan struct{}),
		revision: firstRevision,
		floor:    firstRevision,
		present:  new(btree.Map[string, *store.Entry]),
		expiries: make(map[string]*time.Timer),
		watchers: make(map[*watcher]struct{}),
	}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Entry, int64, error) {
	if err := s.enter(ctx); err != nil {
		return store.Entry{}, 0, fmt.Errorf("get %q: %w", key, err)
	}
	defer s.mu.Unlock()
	entry, ok := s.present.Get(key)
	if !ok {
		return store.Entry{}, s.revision, fmt.Errorf("get %q: %w", key, store.ErrNotFound)
	}
	return *entry, s.revision, nil
}

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (int64, error) {
	if len(value) > store.MaxValue {
		return 0, fmt.Errorf("create %q with %d bytes: %w", key, len(value), store.ErrTooLarge)
	}
	if err := s.enter(ctx); err != nil {
		return 0, fmt.Errorf("create %q: %w", key, err)
	}
	defer s.mu.Unlock()
	if _, taken := s.present.Get(key); taken {
		return 0, fmt.Errorf("create %q: %w", key, store.ErrExists)
	}
	s.put(key, value, nil, ttl)
	return s.revision, nil
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, key string, value []byte, expected int64, ttl time.Duration) (int64, error) {
	if len(value) > store.MaxValue {
		return 0, fmt.Errorf("update %q with %d bytes: %w", key, len(value), store.ErrTooLarge)
	}
	if err := s.enter(ctx); err != nil {
		return 0, fmt.Errorf("update %q: %w", key, err)
	}
	defer s.mu.Unlock()
	old, ok := s.present.Get(key)
	if !ok {
		return 0, fmt.Errorf("update %q: %w", key, store.ErrNotFound)
	}
	if old.Revision != expected {
		return 0, fmt.Errorf("update %q at revision %d, expected %d: %w", key, old.Revision, expected, store.ErrConflict)
	}
	s.put(key, value, old, ttl)
	return s.revision, nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key string, expected int64) (int64, error) {
	if err := s.enter(ctx); err != nil {
		return 0, fmt.Errorf("delete %q: %w", key, err)
	}
	defer s.mu.Unlock()
	old, ok := s.present.Get(key)
	if !ok {
		return 0, fmt.Errorf("delete %q: %w", key, store.ErrNotFound)
	}
	if expected != 0 && old.Revision != expected {
		return 0, fmt.Errorf("delete %q at revision %d, expected %d: %w", key, old.Revision, expected, store.ErrConflict)
	}
	s.remove(old)
	return s.revision, nil
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	if err := s.enter(ctx); err != nil {
		return 0, fmt.Errorf("read revision: %w", err)
	}
	defer s.mu.Unlock()
	return s.revision, nil
}

// RevisionNow implements store.Prompt.
func (s *Store) RevisionNow() (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision, !s.closed
}

// Close implements store.Store. It may be called more than once.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.done)
	for _, timer := range s.expiries {
		timer.Stop()
	}
	clear(s.expiries)
	clear(s.watchers)
	return nil
}

// enter takes the lock, unless the call may not proceed.
func (s *Store) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return store.ErrClosed
	}
	return nil
}

// put makes a new revision in which key has value. The lock is held.
func (s *Store) put(key string, value []byte, old *store.Entry, ttl time.Duration) {
	s.revision++
	entry := &store.Entry{Key: key, Value: bytes.Clone(value), Revision: s.revision, Created: s.revision}
	if old != nil {
		entry.Created = old.Created
	}
	s.frozen = nil
	s.present.Set(key, entry)
	s.expire(entry, ttl)
	s.record(store.Event{Type: store.Put, Entry: *entry, Previous: old})
}

// remove makes a new revision in which the entry is gone. The lock is held.
func (s *Store) remove(old *store.Entry) {
	s.revision++
	s.frozen = nil
	s.present.Delete(old.Key)
	s.expire(old, 0)
	gone := store.Entry{Key: old.Key, Revision: s.revision, Created: old.Created}
	s.record(store.Event{Type: store.Delete, Entry: gone, Previous: old})
}

// expire sets, replaces or removes the entry's timer. The lock is held.
func (s *Store) expire(entry *store.Entry, ttl time.Duration) {
	if timer, ok := s.expiries[entry.Key]; ok {
		timer.Stop()
		delete(s.expiries, entry.Key)
	}
	if ttl <= 0 {
		return
	}
	s.expiries[entry.Key] = time.AfterFunc(ttl, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		// A write that came between the timer and the lock wins.
		if now, ok := s.present.Get(entry.Key); ok && now == entry && !s.closed {
			s.remove(entry)
		}
	})
}
