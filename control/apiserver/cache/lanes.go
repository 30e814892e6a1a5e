package cache

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sampan-dev/sampan/control/store"
)

// NameField is the field that is the last part of an entry's key: telling it takes
// no decoding.
const NameField = "metadata.name"

// Exact is a field and the only value of it that a watcher can want: the node of
// the pods that an agent follows.
type Exact struct{ Field, Value string }

// lanes bring changes to the watchers that want one value of a field. Of thousands
// of agents each wants its own node's pods: if all of them looked at every change,
// a pod would cost more the more nodes there are. One goroutine looks instead, as
// long as there are such watchers, and wakes those whom a change concerns.
type lanes struct {
	mu sync.Mutex // before Cache.mu
	by map[string]map[string]map[*lane]bool
	// next is the place in the window up to which changes have been brought.
	next    uint64
	room    int // of each queue
	running bool
	due     []*lane // want to know when next has moved
}

// lane is what lanes know of a watcher.
type lane struct {
	exact Exact
	bell  chan struct{} // there is something in the queue, or next has moved
	lost  chan struct{} // closed when the watcher has lost its place

	from  uint64    // the place of the first change that the start has not shown
	queue []brought // guarded by lanes.mu; at most Config.Window
}

// brought is a change and its place in the window.
type brought struct {
	place  uint64
	change *change
}

func newLane(exact Exact) *lane {
	return &lane{exact: exact, bell: make(chan struct{}, 1), lost: make(chan struct{})}
}

func (n *lane) ring() {
	select {
	case n.bell <- struct{}{}:
	default:
	}
}

// join adds a watcher and returns the place from which on changes are brought to it.
func (c *Cache) join(n *lane) uint64 {
	l := &c.lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[string]map[string]map[*lane]bool{}
	}
	values := l.by[n.exact.Field]
	if values == nil {
		values = map[string]map[*lane]bool{}
		l.by[n.exact.Field] = values
	}
	if values[n.exact.Value] == nil {
		values[n.exact.Value] = map[*lane]bool{}
	}
	values[n.exact.Value][n] = true
	if !l.running {
		l.running, l.next, l.room = true, c.end(), c.cfg.Window
		go c.bring()
	}
	return l.next
}

// leave takes a watcher out.
func (c *Cache) leave(n *lane) {
	l := &c.lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(n)
}

// remove is leave for who holds the lock.
func (l *lanes) remove(n *lane) {
	values := l.by[n.exact.Field]
	delete(values[n.exact.Value], n)
	if len(values[n.exact.Value]) == 0 {
		delete(values, n.exact.Value)
	}
	if len(values) == 0 {
		delete(l.by, n.exact.Field)
	}
	n.queue = nil
	l.due = slices.DeleteFunc(l.due, func(d *lane) bool { return d == n })
}

// end is the place of the change to come.
func (c *Cache) end() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.first + uint64(len(c.window))
}

// bring wakes watchers until there are none, or the cache ends.
func (c *Cache) bring() {
	for {
		seen, err := c.since(c.lanes.next) // which only this goroutine moves
		if err != nil {
			c.lanes.loseAll()
			return
		}
		seen.changes = seen.changes[:min(len(seen.changes), maxBatch)]
		if !c.lanes.route(seen.changes) {
			return
		}
		if len(seen.changes) == maxBatch {
			continue
		}
		select {
		case <-seen.changed:
		case <-c.done:
			return // so do the watchers
		}
	}
}

// route brings changes to whom they concern; false when there is nobody left.
func (l *lanes) route(changes []*change) bool {
	fields := l.fields()
	for {
		// What has to be decoded is decoded without the lock.
		for _, ch := range changes {
			for _, field := range fields {
				ch.before.value(field)
				ch.after.value(field)
			}
		}
		l.mu.Lock()
		if now := l.fieldsLocked(); !slices.Equal(now, fields) {
			l.mu.Unlock()
			fields = now
			continue
		}
		break
	}
	defer l.mu.Unlock()
	if len(l.by) == 0 {
		l.running = false
		return false
	}
	for i, ch := range changes {
		for _, field := range fields {
			was, is := ch.before.value(field), ch.after.value(field)
			l.put(Exact{field, is}, brought{l.next + uint64(i), ch})
			if was != is {
				l.put(Exact{field, was}, brought{l.next + uint64(i), ch})
			}
		}
	}
	l.next += uint64(len(changes))
	for _, n := range l.due {
		n.ring()
	}
	l.due = nil
	return true
}

func (l *lanes) put(to Exact, s brought) {
	for n := range l.by[to.Field][to.Value] {
		if len(n.queue) >= l.room {
			close(n.lost)
			l.remove(n)
			continue
		}
		n.queue = append(n.queue, s)
		n.ring()
	}
}

func (l *lanes) fields() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fieldsLocked()
}

func (l *lanes) fieldsLocked() []string {
	fields := make([]string, 0, len(l.by))
	for field := range l.by {
		fields = append(fields, field)
	}
	slices.Sort(fields)
	return fields
}

// loseAll ends all watchers: the window has been started anew.
func (l *lanes) loseAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, values := range l.by {
		for _, all := range values {
			for n := range all {
				close(n.lost)
				n.queue = nil
			}
		}
	}
	l.by, l.due, l.running = nil, nil, false
}

// value is an entry's field; "" for no entry.
func (e *Entry) value(field string) string {
	switch {
	case e == nil:
		return ""
	case field == NameField:
		return e.key[strings.LastIndexByte(e.key, '/')+1:]
	}
	return e.Fields()[field]
}

// followLane delivers what is brought to the watcher, from its place in the window on,
// until it ends.
func (w *Watcher) followLane() {
	n := newLane(w.opts.Exact)
	from := w.cache.join(n)
	defer w.cache.leave(n)
	for w.next < from { // what happened before is in the window
		seen, err := w.cache.since(w.next)
		if err != nil {
			w.err = err
			return
		}
		seen.changes = seen.changes[:min(uint64(len(seen.changes)), from-w.next)]
		if !w.deliver(seen) {
			return
		}
	}
	w.lane, n.from = n, w.next
	tick, last, halt := w.ticks()
	defer halt()
	for {
		changes, revision := w.take()
		if !w.deliver(view{changes: changes, revision: revision}) || !w.rest() {
			return
		}
		select {
		case <-n.bell:
		case <-tick:
			w.askBookmark()
			n.ring()
		case <-last:
			w.askBookmark()
			n.ring()
		case <-n.lost:
			w.err = fmt.Errorf("watch of %q fell behind: %w", w.cache.cfg.Prefix, ErrBehind)
			return
		case <-w.cache.done:
			w.err = fmt.Errorf("watch %q: %w", w.cache.cfg.Prefix, store.ErrClosed)
			return
		case <-w.stop:
			return
		}
	}
}

// take empties the queue. The revision is one up to which the watcher has then been
// shown everything, if a bookmark is due and that is known; else 0, and the watcher is
// woken when it may be known.
func (w *Watcher) take() ([]*change, int64) {
	l := &w.cache.lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	var changes []*change
	taken := min(len(w.lane.queue), maxBatch)
	for _, s := range w.lane.queue[:taken] {
		if s.place >= w.lane.from { // else the start has shown it
			changes = append(changes, s.change)
		}
	}
	w.lane.queue = w.lane.queue[taken:]
	if len(w.lane.queue) == 0 {
		w.lane.queue = nil
	} else {
		w.lane.ring()
	}
	if !w.due || w.lane.queue != nil {
		return changes, 0
	}
	if seen, err := w.cache.since(l.next); err == nil && len(seen.changes) == 0 && seen.revision > w.sent {
		return changes, seen.revision
	}
	if !slices.Contains(l.due, w.lane) {
		l.due = append(l.due, w.lane)
	}
	return changes, 0
}
