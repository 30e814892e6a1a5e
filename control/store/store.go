// Package store is the contract of the cluster's memory: versioned, watchable
// bytes under ordered keys. It has never heard of a Pod.
//
// Every write gets the next revision of one counter shared by all keys, exactly
// etcd's model. Implementations are in etcd and memory; the exam that both pass
// is in storetest.
package store

import (
	"context"
	"errors"
	"time"
)

// The kinds of failure. Match them with errors.Is.
var (
	// ErrNotFound: the key does not exist (at the revision asked for).
	ErrNotFound = errors.New("key not found")
	// ErrExists: Create found the key taken.
	ErrExists = errors.New("key already exists")
	// ErrConflict: the key is no longer at the revision the caller saw.
	ErrConflict = errors.New("revision conflict")
	// ErrCompacted: the revision asked for is no longer kept.
	ErrCompacted = errors.New("revision compacted")
	// ErrFuture: the revision asked for has not happened yet.
	ErrFuture = errors.New("revision in the future")
	// ErrTooLarge: the value is larger than MaxValue.
	ErrTooLarge = errors.New("value too large")
	// ErrFull: there is no room on the disk. Reading and deleting work.
	ErrFull = errors.New("disk full")
	// ErrClosed: the store has been closed.
	ErrClosed = errors.New("store closed")
)

// MaxValue is the largest value in bytes; etcd refuses more than 1.5 MiB for a
// whole transaction, keys included.
const MaxValue = 1536*1024 - 4096

// Entry is one key's value as some revision left it. Value is shared: never
// write to it.
type Entry struct {
	Key   string
	Value []byte
	// Revision is that of the write which left this value (etcd's ModRevision).
	Revision int64
	// Created is the revision of the write which created the key.
	Created int64
}

// EventType says what a write did to its key.
type EventType int

// The event types.
const (
	Put EventType = iota + 1
	Delete
	// Progress carries only a Revision: everything up to it has been delivered.
	Progress
)

// Event is one write, as watchers see it. For a Delete, Entry holds the key and
// the revision of the deletion, with no value; Previous is what it removed.
// Previous is nil for the Put that created the key.
type Event struct {
	Type     EventType
	Entry    Entry
	Previous *Entry
}

// Sized is a Store that knows how large it is.
type Sized interface {
	Store
	// Size is what the database takes on disk, in bytes.
	Size(ctx context.Context) (int64, error)
}

// ListOptions narrow a List. The zero value lists everything, now.
type ListOptions struct {
	// From is the first key wanted, inclusive; "" means the prefix itself.
	From string
	// Limit is the largest number of entries returned; 0 means no limit.
	Limit int
	// Revision asks for the state as that revision left it; 0 means now.
	Revision int64
}

// Listing is one answer to List.
type Listing struct {
	Entries []Entry
	// Revision is the store's revision that this listing shows.
	Revision int64
	// More says that the limit cut the listing short.
	More bool
	// Remaining counts the entries after the last returned one.
	Remaining int64
}

// Store is versioned, watchable bytes. All methods may be called concurrently;
// each write is durable when it returns (the memory store: for the life of the
// process) and linearizable.
type Store interface {
	// Get returns the entry under key as it is now, and the store's revision.
	// ErrNotFound when there is none (the revision is still valid).
	Get(ctx context.Context, key string) (Entry, int64, error)
	// List returns the entries under prefix in key order.
	List(ctx context.Context, prefix string, opts ListOptions) (Listing, error)
	// Create stores value under a key that must not exist and returns its
	// revision; otherwise ErrExists. A ttl above zero lets the entry expire
	// that long from now, which watchers see as a Delete.
	Create(ctx context.Context, key string, value []byte, ttl time.Duration) (int64, error)
	// Update replaces the value of a key that must be at revision expected;
	// ErrNotFound or ErrConflict otherwise. A ttl above zero replaces the
	// entry's expiry; zero leaves the entry without one.
	Update(ctx context.Context, key string, value []byte, expected int64, ttl time.Duration) (int64, error)
	// Delete removes a key that must be at revision expected (0: at any) and
	// returns the revision of the deletion; ErrNotFound or ErrConflict otherwise.
	Delete(ctx context.Context, key string, expected int64) (int64, error)
	// Watch delivers every event under prefix with a revision above after, in
	// revision order and without gaps, until ctx ends. ErrCompacted when after
	// is no longer kept. Progress events come when asked for by RequestProgress
	// and may come at other times.
	Watch(ctx context.Context, prefix string, after int64) (Watcher, error)
	// Revision is the store's revision now, read linearizably.
	Revision(ctx context.Context) (int64, error)
	// Compact forgets what revisions before rev looked like.
	Compact(ctx context.Context, rev int64) error
	// Close frees everything; calls under way fail with ErrClosed.
	Close() error
}

// Watcher delivers events in batches: one batch holds whole revisions only.
type Watcher interface {
	// Next waits for the next batch. It fails with ErrCompacted, ErrClosed or
	// the context's cause, and keeps failing after that.
	Next(ctx context.Context) ([]Event, error)
	// RequestProgress asks for a Progress event as soon as everything up to the
	// store's present revision has been delivered.
	RequestProgress(ctx context.Context) error
	// Stop frees the watcher; Next then fails with ErrClosed.
	Stop()
}

// Prompt is what a store may be, too, that can tell its revision without asking
// anybody.
type Prompt interface {
	// RevisionNow is what Revision says, at once; known is false when that would
	// take a question to somebody else.
	RevisionNow() (revision int64, known bool)
}

// RevisionNow is s's revision, if it or a store that it wraps is Prompt. A store
// that wraps another has a method "Unwrap() Store".
func RevisionNow(s Store) (revision int64, known bool) {
	for {
		if p, ok := s.(Prompt); ok {
			return p.RevisionNow()
		}
		w, ok := s.(interface{ Unwrap() Store })
		if !ok {
			return 0, false
		}
		s = w.Unwrap()
	}
}

// Checked is what a store may be, too, that can tell more truly than by its revision
// whether it is well.
type Checked interface {
	// Check says whether what is written now would be durable, before ctx ends. It may be
	// asked as often as one likes: what it costs is bounded.
	Check(ctx context.Context) error
}

// Check says whether s is well: as it or a store that it wraps says itself when one of
// them is Checked, or else by a read.
func Check(ctx context.Context, s Store) error {
	for at := s; ; {
		if c, ok := at.(Checked); ok {
			return c.Check(ctx)
		}
		w, ok := at.(interface{ Unwrap() Store })
		if !ok {
			_, err := s.Revision(ctx)
			return err
		}
		at = w.Unwrap()
	}
}

type withoutPrevious struct{}

// WithoutPrevious returns a context for Watch under which events need not tell what
// preceded them: Event.Previous may be nil where there was something.
func WithoutPrevious(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutPrevious{}, true)
}

// PreviousWanted says that ctx is none of WithoutPrevious.
func PreviousWanted(ctx context.Context) bool { return ctx.Value(withoutPrevious{}) == nil }
