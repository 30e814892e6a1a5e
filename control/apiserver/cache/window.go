package cache

import (
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/tidwall/btree"
)

// change is one write in the window. before is nil for a creation, after for a
// deletion.
type change struct {
	revision      int64
	before, after *Entry
	at            time.Time // when it was published

	once   sync.Once
	parted *Entry
}

// leaving is the state before the change under the change's revision: what a
// watcher is shown of an object that is deleted, or no longer matches.
func (ch *change) leaving() *Entry {
	ch.once.Do(func() {
		ch.parted = &Entry{cfg: ch.before.cfg, key: ch.before.key, raw: ch.before.raw, revision: ch.revision}
		ch.parted.hot.Store(true)
		ch.before.bequeath(ch.parted)
	})
	return ch.parted
}

// warm keeps the encodings of the entries in the window, where watchers are
// going to ask for them; cool leaves them to the garbage collector.
func (ch *change) warm() {
	if ch.after != nil {
		ch.after.hot.Store(true)
	}
}

func (ch *change) cool() {
	if ch.after != nil {
		ch.after.cool()
	}
}

// publish shows the world the tree at revision, and the changes that led to it. The
// lock is held.
func (c *Cache) publish(changes []*change, revision int64) {
	now := time.Now()
	for _, ch := range changes {
		ch.at = now
		ch.warm()
	}
	if len(changes) == 0 && revision <= c.current.revision {
		return // nobody is woken for no news
	}
	if len(changes) > 0 {
		c.window = append(c.window, changes...)
		c.current.tree = nil
		c.trim()
	}
	c.current.revision = max(c.current.revision, revision)
	c.current.next = c.first + uint64(len(c.window))
	c.announceLocked()
}

// trim forgets the oldest changes when there are a quarter more than wanted. It
// cuts between revisions only. The lock is held.
func (c *Cache) trim() {
	if len(c.window) < c.cfg.Window+c.cfg.Window/4+1 {
		return
	}
	cut := len(c.window) - c.cfg.Window
	for cut < len(c.window) && c.window[cut].revision == c.window[cut-1].revision {
		cut++
	}
	for _, ch := range c.window[:cut] {
		ch.cool()
	}
	c.floor = c.window[cut-1].revision
	c.first += uint64(cut)
	// A new array: readers may still hold parts of the old one.
	c.window = append(make([]*change, 0, c.cfg.Window+c.cfg.Window/2), c.window[cut:]...)
}

// restart shows the world a tree that was read anew. Nobody can know what
// happened in between: the window starts empty, and who waits in the old one is
// lost.
func (c *Cache) restart(tree *btree.Map[string, *Entry], revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.window {
		ch.cool()
	}
	c.first += uint64(len(c.window)) + 1 // leave nobody a place
	c.window = nil
	c.floor = revision
	c.work = tree
	c.current = Snapshot{revision: revision, next: c.first}
	c.announceLocked()
}

// ripe says that the cache is filled and followed.
func (c *Cache) ripe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	c.announceLocked()
}

// advance notes that nothing has happened here up to what the feed has seen, and
// returns the revision that the cache shows.
func (c *Cache) advance() int64 {
	if c.cfg.Feed == nil || !c.fed.Load() {
		return 0
	}
	seen := c.cfg.Feed.seen.Load() // before the lock: what it counts is in the tree
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fed.Load() {
		c.current.revision = max(c.current.revision, seen)
	}
	return c.current.revision
}

func (c *Cache) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announceLocked()
}

func (c *Cache) announceLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// view is what a watcher sees from its place in the window.
type view struct {
	changes  []*change
	revision int64           // everything up to it is in changes or before them
	changed  <-chan struct{} // closed when there is more to see
}

// since is the view from the place with sequence number next. The place behind
// a window that was started anew, or that was cut off, is lost.
func (c *Cache) since(next uint64) (view, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if next < c.first {
		return view{}, fmt.Errorf("watch of %q fell more than %d events behind: %w", c.cfg.Prefix, c.cfg.Window, ErrBehind)
	}
	return view{changes: c.window[next-c.first:], revision: c.current.revision, changed: c.changed}, nil
}

// placeAfter is the index in the window of the first change above rev. The lock
// is held.
func (c *Cache) placeAfter(rev int64) int {
	return sort.Search(len(c.window), func(i int) bool { return c.window[i].revision > rev })
}
