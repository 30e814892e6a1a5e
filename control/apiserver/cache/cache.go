// Package cache is the watch cache: for one resource, everything that is stored,
// decoded once, shared by all readers, with a window of recent events from which
// watches can start.
//
// The objects live in a copy-on-write B-tree keyed "namespace/name", so that a
// snapshot is O(1) and never changes under its reader. Entries own the stored
// bytes; the decoded object is made on first use and may be dropped and made
// again (of a write that was announced it is there already: see Expect); each
// encoding that a client asked for is made once and shared by all watchers.
//
// Watchers have no queues. Each is a place in the window, which all share: one
// that does not read costs nothing and slows nobody, and is closed with ErrBehind
// when the window has moved past it.
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/backoff"
)

const (
	// DefaultWindow is how many events are kept when Config says nothing. A
	// client that was away for less resumes its watch without a new list.
	DefaultWindow = 4096
	// fillPage is how many entries one read of the store returns while filling:
	// it bounds the size of one answer of an external etcd to some tens of MB.
	fillPage = 10_000
)

// ErrNotReady says that the cache has not been filled from the store yet.
var ErrNotReady = errors.New("watch cache not filled yet")

// ErrBehind says that a watcher has lost its place in the window: its reader was
// too slow, or the cache had to be filled anew. A new watch after the last
// revision that it delivered goes on.
var ErrBehind = errors.New("watcher fell behind the window")

// again is how long the cache waits before it tries to reach the store again.
var again = backoff.Policy{Min: 50 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.5}

// Config is what a Cache is made of.
type Config struct {
	// Store is read and followed, never written. It must outlive Run.
	Store store.Store
	// Feed is a watch of the store to share with others; nil: the cache watches
	// alone. It must run as long as the cache.
	Feed *Feed
	// Prefix is what the resource's keys begin with, ending in a slash:
	// "/registry/pods/".
	Prefix string
	// Decode makes an object of stored bytes, without setting its
	// resourceVersion. It is called concurrently and must not keep the bytes.
	Decode func(value []byte) (runtime.Object, error)
	// DecodeAll does the same for many at once, all or none; set when that is
	// cheaper by far (a webhook converts them). Nil: Decode is cheap.
	DecodeAll func(ctx context.Context, values [][]byte) ([]runtime.Object, error)
	// Open makes what Decode understands of the bytes stored under key
	// (decryption at rest); nil: they are stored as they are.
	Open func(key string, value []byte) ([]byte, error)
	// Window is how many events are kept at least; zero means DefaultWindow.
	// It is also how far a watcher may fall behind before it is closed.
	Window int
	// Fields are what field selectors of this resource can ask for; nil: none.
	Fields func(obj runtime.Object) fields.Set
	// Log hears about a store that fails; nil means slog.Default.
	Log *slog.Logger
}

// Cache mirrors one prefix of a store. All methods may be called concurrently;
// Run is called once.
type Cache struct {
	cfg   Config
	ready chan struct{} // closed once filled
	done  chan struct{} // closed when Run returns

	// following is the store's watcher, while there is one, for asking progress.
	following atomic.Pointer[store.Watcher]
	// fed says that everything up to what the feed has seen is in here.
	fed atomic.Bool

	together chan struct{} // holds one who decodes together

	lanes    lanes
	expected expected
	audience audience

	// mu guards what follows. Run writes it, everybody reads it.
	mu sync.RWMutex
	// work is what there is. A copy of it for readers costs little, but what is
	// written after that copies nodes of the tree: it is made for those who ask.
	work    *btree.Map[string, *Entry]
	current Snapshot      // its tree is nil while nobody has asked for it
	changed chan struct{} // closed and replaced whenever something here changes
	// window holds the events after revision floor, in order; the first one has
	// the sequence number first. Its elements never change once appended: a
	// reader may keep a part of it without the lock.
	window []*change
	first  uint64
	floor  int64
}

// New returns a cache that is empty until Run fills it.
func New(cfg Config) *Cache {
	if cfg.Window <= 0 {
		cfg.Window = DefaultWindow
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Cache{
		cfg:     cfg,
		ready:   make(chan struct{}),
		done:    make(chan struct{}),
		work:    new(btree.Map[string, *Entry]),
		changed: make(chan struct{}),

		together: make(chan struct{}, 1),
	}
}

// Ready is closed once the cache has been filled for the first time.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Run fills the cache from the store and follows the store's watch until ctx
// ends or the store is closed, and returns the cause. Failures in between are
// logged and tried again; when the store has compacted what the cache had not
// seen yet, everything is read again and all watchers are closed.
func (c *Cache) Run(ctx context.Context) error {
	defer close(c.done)
	filled := false
	for failures := 0; ; {
		start := c.Revision()
		err := c.once(ctx, &filled)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, store.ErrClosed):
			return fmt.Errorf("watch cache of %q: %w", c.cfg.Prefix, err)
		case errors.Is(err, store.ErrCompacted):
			filled = false
		}
		if failures++; c.Revision() > start {
			failures = 1 // there was progress
		}
		delay := again.After(failures)
		c.cfg.Log.WarnContext(ctx, "watch cache lost the store", "prefix", c.cfg.Prefix, "error", err, "again_in", delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// once fills the cache unless it is filled, and follows the store until that
// fails.
func (c *Cache) once(ctx context.Context, filled *bool) error {
	if c.cfg.Feed != nil {
		return c.share(ctx)
	}
	if !*filled {
		if err := c.fill(ctx); err != nil {
			return err
		}
		*filled = true
		c.ripe()
	}
	watcher, err := c.cfg.Store.Watch(ctx, c.cfg.Prefix, c.Revision())
	if err != nil {
		return err
	}
	defer watcher.Stop()
	c.following.Store(&watcher)
	defer c.following.Store(nil)
	c.announce() // whoever waits may ask for progress now
	for {
		batch, err := watcher.Next(ctx)
		if err != nil {
			return err
		}
		c.apply(batch)
	}
}

// share fills the cache and lets the feed bring it what happens, until it cannot.
func (c *Cache) share(ctx context.Context) error {
	part, err := c.cfg.Feed.subscribe(ctx, c)
	if err != nil {
		return err
	}
	defer c.cfg.Feed.leave(part)
	if err := c.fill(ctx); err != nil {
		return err
	}
	if err := c.cfg.Feed.enter(part); err != nil {
		return err
	}
	c.ripe()
	select {
	case <-part.lost:
		return part.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fill reads everything under the prefix and starts a new window. Entries that
// have not changed are kept, with all that was made of them.
func (c *Cache) fill(ctx context.Context) error {
	tree := new(btree.Map[string, *Entry])
	opts := store.ListOptions{Limit: fillPage}
	for {
		page, err := c.cfg.Store.List(ctx, c.cfg.Prefix, opts)
		if err != nil {
			return err
		}
		for _, stored := range page.Entries {
			entry := c.entry(stored)
			if old, ok := c.Get(entry.key); ok && old.revision == entry.revision {
				entry = old
			}
			tree.Set(entry.key, entry)
		}
		opts.Revision = page.Revision
		if !page.More {
			break
		}
		opts.From = page.Entries[len(page.Entries)-1].Key + "\x00"
	}
	c.restart(tree, opts.Revision)
	return nil
}

// entry makes a cache entry of a stored one.
func (c *Cache) entry(stored store.Entry) *Entry {
	return &Entry{
		cfg:      &c.cfg,
		key:      strings.TrimPrefix(stored.Key, c.cfg.Prefix),
		raw:      stored.Value,
		revision: stored.Revision,
	}
}

// apply brings a batch of the store's events into the tree and the window.
func (c *Cache) apply(batch []store.Event) {
	if len(batch) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	changes := make([]*change, 0, len(batch))
	for _, event := range batch {
		if event.Type == store.Progress {
			continue
		}
		next := &change{revision: event.Entry.Revision}
		key := strings.TrimPrefix(event.Entry.Key, c.cfg.Prefix)
		if event.Type == store.Delete {
			next.before, _ = c.work.Delete(key)
		} else {
			next.after = c.entry(event.Entry)
			next.after.given(c.expected.take(event.Entry.Key, event.Entry.Value))
			next.before, _ = c.work.Set(key, next.after)
		}
		if next.before != nil || next.after != nil {
			changes = append(changes, next)
		}
	}
	c.publish(changes, batch[len(batch)-1].Entry.Revision)
}
