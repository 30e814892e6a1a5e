package cache

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tidwall/btree"

	"github.com/sampan-dev/sampan/control/store"
)

// askEvery is how often one who waits asks the store for progress again. etcd
// leaves a request unanswered while one of its watchers is still catching up.
const askEvery = 100 * time.Millisecond

// Snapshot is everything under the prefix as one revision left it. It is a small
// value, never changes, and may be kept and read concurrently. The zero Snapshot
// is not usable.
type Snapshot struct {
	tree     *btree.Map[string, *Entry]
	revision int64
	next     uint64 // the place in the window right behind this snapshot
}

// Revision is the store's revision that the snapshot shows; 0 before the cache
// was filled.
func (s Snapshot) Revision() int64 { return s.revision }

// Len is the number of entries.
func (s Snapshot) Len() int { return s.tree.Len() }

// Get returns the entry under "namespace/name", or "name" for kinds that have no
// namespace.
func (s Snapshot) Get(key string) (*Entry, bool) { return s.tree.Get(key) }

// Ascend calls fn for the entries whose keys begin with prefix, in key order,
// beginning with the first key not below from ("": all), until fn returns false.
func (s Snapshot) Ascend(prefix, from string, fn func(*Entry) bool) {
	s.tree.Ascend(max(prefix, from), func(key string, entry *Entry) bool {
		return strings.HasPrefix(key, prefix) && fn(entry)
	})
}

// Snapshot is the newest state the cache has; it may be behind the store. Who wants
// one entry or the revision asks for that: the writes after a snapshot cost more.
func (c *Cache) Snapshot() Snapshot {
	c.mu.RLock()
	now := c.current
	c.mu.RUnlock()
	if now.tree != nil {
		return now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot()
}

// snapshot is Snapshot for who holds the lock.
func (c *Cache) snapshot() Snapshot {
	if c.current.tree == nil {
		c.current.tree = c.work.IsoCopy()
	}
	return c.current
}

// Get is what Snapshot().Get would return.
func (c *Cache) Get(key string) (*Entry, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.work.Get(key)
}

// Revision is what Snapshot().Revision would return.
func (c *Cache) Revision() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.current.revision
}

// WaitFor waits until the cache shows revision rev or a later one, and in any
// case until it is filled. When ctx ends before, the error is store.ErrFuture
// and the context's cause; when the cache stops running, store.ErrClosed.
func (c *Cache) WaitFor(ctx context.Context, rev int64) error {
	var retry *time.Ticker // nil until there is something to wait for
	defer func() {
		if retry != nil {
			retry.Stop()
		}
	}()
	asked := false
	for {
		var passed <-chan struct{} // more revisions, with nothing of ours in them
		c.mu.RLock()
		have, changed := c.current.revision, c.changed
		c.mu.RUnlock()
		if have < max(rev, 1) && c.cfg.Feed != nil {
			if have = max(have, c.advance()); have < rev {
				passed = c.cfg.Feed.changed()
				have = max(have, c.advance()) // it may have come before passed was there
			}
		}
		if have >= max(rev, 1) {
			return nil
		}
		if retry == nil {
			retry = time.NewTicker(askEvery)
		}
		if !asked {
			asked = c.askProgress(ctx)
		}
		var err error
		select {
		case <-changed:
		case <-passed:
		case <-retry.C:
			asked = false
		case <-c.done:
			err = store.ErrClosed
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", store.ErrFuture, context.Cause(ctx))
		}
		if err != nil {
			return fmt.Errorf("watch cache of %q is at revision %d, wanted %d: %w", c.cfg.Prefix, have, rev, err)
		}
	}
}

// askProgress makes the store say how far it is, and reports whether there was a
// watch to say it on. A failure shows on the watch itself, or is healed by asking
// again.
func (c *Cache) askProgress(ctx context.Context) bool {
	if c.cfg.Feed != nil {
		return c.cfg.Feed.askProgress(ctx)
	}
	watcher := c.following.Load()
	if watcher == nil {
		return false
	}
	if err := (*watcher).RequestProgress(ctx); err != nil {
		c.cfg.Log.DebugContext(ctx, "watch cache cannot ask for progress", "prefix", c.cfg.Prefix, "error", err)
	}
	return true
}

// UpToDate says whether the cache is known, without asking anybody, to show every
// write acknowledged before the call.
func (c *Cache) UpToDate() bool {
	revision, known := store.RevisionNow(c.cfg.Store)
	return known && (c.Revision() >= revision || c.advance() >= revision)
}

// Fresh is a snapshot that shows every write acknowledged before the call.
func (c *Cache) Fresh(ctx context.Context) (Snapshot, error) {
	rev, err := c.cfg.Store.Revision(ctx)
	if err != nil {
		return Snapshot{}, fmt.Errorf("watch cache of %q: %w", c.cfg.Prefix, err)
	}
	if err := c.WaitFor(ctx, rev); err != nil {
		return Snapshot{}, err
	}
	return c.Snapshot(), nil
}

// At is the state exactly as revision rev left it. What the window remembers is
// answered from memory, at a cost that grows with the number of events since;
// older states come from the store. store.ErrCompacted when nobody remembers;
// a revision yet to come is waited for, as WaitFor does.
func (c *Cache) At(ctx context.Context, rev int64) (Snapshot, error) {
	if err := c.WaitFor(ctx, rev); err != nil {
		return Snapshot{}, err
	}
	if past, ok := c.undo(rev); ok {
		return past, nil
	}
	listing, err := c.cfg.Store.List(ctx, c.cfg.Prefix, store.ListOptions{Revision: rev})
	if err != nil {
		return Snapshot{}, fmt.Errorf("watch cache of %q: %w", c.cfg.Prefix, err)
	}
	tree := new(btree.Map[string, *Entry])
	for _, stored := range listing.Entries {
		entry := c.entry(stored)
		tree.Set(entry.key, entry)
	}
	return Snapshot{tree: tree, revision: rev}, nil
}

// undo takes the changes after rev back from a copy of the present.
func (c *Cache) undo(rev int64) (Snapshot, bool) {
	c.mu.Lock()
	if rev < c.floor {
		c.mu.Unlock()
		return Snapshot{}, false
	}
	from := c.placeAfter(rev)
	later := c.window[from:]
	past := Snapshot{tree: c.snapshot().tree, revision: rev, next: c.first + uint64(from)}
	if len(later) > 0 {
		past.tree = c.work.IsoCopy()
	}
	c.mu.Unlock()
	for i := len(later) - 1; i >= 0; i-- {
		if before := later[i].before; before != nil {
			past.tree.Set(before.key, before)
			continue
		}
		past.tree.Delete(later[i].after.key)
	}
	return past, true
}
