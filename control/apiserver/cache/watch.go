package cache

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/control/store"
)

const (
	// maxBatch is the largest number of events delivered at once.
	maxBatch = 500
	// bookmarkEvery is how long a watcher that wants bookmarks waits for the
	// next one when nothing else has moved its revision; upstream's is 1 minute.
	bookmarkEvery = time.Minute
	// bookmarkBefore is how long before the end of a watch its last bookmark comes.
	bookmarkBefore = 2 * time.Second
)

// EventType says what an event means to its watcher.
type EventType int

// The event types.
const (
	Added EventType = iota + 1
	Modified
	Deleted
	// Bookmark carries only a revision: everything up to it has been delivered.
	Bookmark
	// InitialDone carries only a revision: the initial state has been delivered.
	InitialDone
)

// String is the word that the Kubernetes API has for the type. InitialDone is a
// bookmark there.
func (t EventType) String() string {
	switch t {
	case Added:
		return "ADDED"
	case Modified:
		return "MODIFIED"
	case Deleted:
		return "DELETED"
	case Bookmark, InitialDone:
		return "BOOKMARK"
	}
	return fmt.Sprintf("EventType(%d)", int(t))
}

// Event is one change as a watcher sees it. The Entry of a Deleted event is the
// last state that matched, with the revision of the deletion.
type Event struct {
	Type     EventType
	Entry    *Entry
	Revision int64
}

// WatchOptions say what a watcher wants to see.
type WatchOptions struct {
	// After: events with a higher revision are delivered. A revision yet to come
	// is fine.
	After int64
	// Initial: the present state comes first as Added events, then InitialDone,
	// then what happens after. After is ignored.
	Initial bool
	// Namespace limits the watch to one namespace; "" means all.
	Namespace string
	// Match limits the watch to entries for which it returns true; nil: all. An
	// object that starts to match is seen as Added, one that stops as Deleted.
	// It is called from the watcher's own goroutine, once or twice an event.
	Match func(*Entry) bool
	// Exact, when its field is set, promises that Match is true only for entries
	// with the value: the watcher is not woken for others. The field is one that
	// Config.Fields tells, or NameField. Where Config.DecodeAll is set it is ignored.
	Exact Exact
	// Bookmarks: a Bookmark tells every minute how far the watch has come,
	// unless other events did.
	Bookmarks bool
	// Lasts is after which time the watch will be stopped: one that wants bookmarks
	// gets one shortly before, from which its reader can go on. 0: nobody knows.
	Lasts time.Duration
	// Paced brings events of a busy watch together: batches come some two hundred
	// times a second at most, but for a few at once. For readers to whom the batch
	// costs more than what is in it.
	Paced bool
}

// Watcher delivers events. Stop it when done.
type Watcher struct {
	cache *Cache
	opts  WatchOptions
	start Snapshot // the initial state to deliver, if wanted

	events chan []Event
	stop   chan struct{}
	once   sync.Once
	err    error // set before events is closed

	// What follows belongs to the goroutine of run.
	past bool   // the watch begins before the window
	next uint64 // the place in the window
	sent int64  // the highest revision the reader knows of
	due  bool   // a bookmark is
	pace pace
	lane *lane // by which changes come, once the start has been delivered; nil: w.next
	// happened is when the first of the events that are delivered now did; zero
	// when they are no news.
	happened time.Time
}

// Watch starts a watcher. What the window does not reach back to comes out of the
// store's history; whether that still has it shows in Watcher.Err. ErrNotReady
// before the cache is filled.
func (c *Cache) Watch(opts WatchOptions) (*Watcher, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.revision == 0 {
		return nil, fmt.Errorf("watch %q: %w", c.cfg.Prefix, ErrNotReady)
	}
	if c.cfg.DecodeAll != nil {
		opts.Exact = Exact{}
	}
	w := &Watcher{cache: c, opts: opts, events: make(chan []Event), stop: make(chan struct{}),
		pace: pace{on: opts.Paced, left: paceBurst}}
	switch {
	case opts.Initial:
		w.start, w.next = c.snapshot(), c.current.next
	case opts.After < c.floor:
		w.past, w.sent = true, opts.After
	default:
		w.next, w.sent = c.first+uint64(c.placeAfter(opts.After)), opts.After
	}
	if opts.Exact.Field != NameField {
		c.audience.count(opts.Namespace, 1)
	}
	go w.run()
	return w, nil
}

// C delivers batches of events in revision order; none is empty. It is closed
// when the watcher ends.
func (w *Watcher) C() <-chan []Event { return w.events }

// Err is why C was closed: nil after Stop; ErrBehind when the reader was too slow
// or the cache had to start anew; store.ErrCompacted when nobody remembers what
// happened since WatchOptions.After; store.ErrClosed when the cache stopped. It
// may be called once C is closed.
func (w *Watcher) Err() error { return w.err }

// Stop ends the watcher; C is closed soon after. It may be called more than once.
func (w *Watcher) Stop() { w.once.Do(func() { close(w.stop) }) }

// run delivers until the watcher ends.
func (w *Watcher) run() {
	defer close(w.events)
	if w.opts.Exact.Field != NameField {
		defer w.cache.audience.count(w.opts.Namespace, -1)
	}
	if w.opts.Initial && !w.deliverInitial() || w.past && !w.deliverPast() {
		return
	}
	if w.opts.Exact.Field != "" {
		w.followLane()
		return
	}
	tick, last, halt := w.ticks()
	defer halt()
	for {
		seen, err := w.cache.since(w.next)
		if err != nil {
			w.err = err
			return
		}
		if !w.deliver(seen) {
			return
		}
		if len(seen.changes) > maxBatch {
			continue
		}
		if !w.rest() {
			return
		}
		select {
		case <-seen.changed:
		case <-tick:
			w.askBookmark()
		case <-last:
			w.askBookmark()
		case <-w.cache.done:
			w.err = fmt.Errorf("watch %q: %w", w.cache.cfg.Prefix, store.ErrClosed)
			return
		case <-w.stop:
			return
		}
	}
}

// ticks tell when a bookmark is due, and the last one, until halt is called.
func (w *Watcher) ticks() (tick, last <-chan time.Time, halt func()) {
	if !w.opts.Bookmarks {
		return nil, nil, func() {}
	}
	ticker := time.NewTicker(bookmarkEvery)
	if w.opts.Lasts == 0 {
		return ticker.C, nil, ticker.Stop
	}
	timer := time.NewTimer(max(0, w.opts.Lasts-bookmarkBefore))
	return ticker.C, timer.C, func() { ticker.Stop(); timer.Stop() }
}

// askBookmark has the next bookmark delivered as soon as it has something to say.
func (w *Watcher) askBookmark() {
	w.due = true
	w.cache.advance()
	w.cache.askProgress(context.Background())
}

// rest waits until the next batch may come, and reports whether one may at all.
func (w *Watcher) rest() bool {
	wait := w.pace.wait()
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.cache.done:
		return true // which the caller finds out
	case <-w.stop:
		return false
	}
}

// deliver sends what the reader wants of the next changes, and the bookmark when
// it is due.
func (w *Watcher) deliver(seen view) bool {
	changes := seen.changes[:min(len(seen.changes), maxBatch)]
	if !w.together(changes) {
		return false
	}
	var batch []Event
	for _, ch := range changes {
		if event, ok := w.translate(ch); ok {
			if len(batch) == 0 {
				w.happened = ch.at
			}
			batch = append(batch, event)
			w.sent = event.Revision
		}
	}
	w.next += uint64(len(changes))
	atEnd := len(changes) == len(seen.changes)
	if w.due && atEnd && seen.revision > w.sent {
		batch = append(batch, Event{Type: Bookmark, Revision: seen.revision})
		w.sent = seen.revision
		w.due = false
	}
	return len(batch) == 0 || w.send(batch)
}

// deliverInitial sends the start snapshot and lets go of it.
func (w *Watcher) deliverInitial() bool {
	if !w.startTogether() {
		return false
	}
	var batch []Event
	alive := true
	w.start.Ascend(w.scope(), "", func(entry *Entry) bool {
		if w.opts.Match != nil && !w.opts.Match(entry) {
			return true
		}
		batch = append(batch, Event{Type: Added, Entry: entry, Revision: entry.revision})
		if len(batch) == maxBatch {
			alive = w.send(batch)
			batch = nil
		}
		return alive
	})
	w.sent = w.start.revision
	w.start = Snapshot{}
	return alive && w.send(append(batch, Event{Type: InitialDone, Revision: w.sent}))
}

// send hands a batch over. A reader that makes it wait until the window has moved
// past is given up.
func (w *Watcher) send(batch []Event) bool {
	for {
		changed, lost, err := w.moved()
		if err != nil {
			w.err = err
			return false
		}
		select {
		case w.events <- batch:
			w.pace.took(w.happened)
			w.happened = time.Time{}
			return true
		case <-changed:
		case <-lost:
			w.err = fmt.Errorf("watch of %q fell behind: %w", w.cache.cfg.Prefix, ErrBehind)
			return false
		case <-w.cache.done:
			w.err = fmt.Errorf("watch %q: %w", w.cache.cfg.Prefix, store.ErrClosed)
			return false
		case <-w.stop:
			return false
		}
	}
}

// moved tells who waits for the reader when to look at its place again, or that it
// has none any more. Of the window nothing is held meanwhile.
func (w *Watcher) moved() (changed, lost <-chan struct{}, err error) {
	if w.lane != nil {
		return nil, w.lane.lost, nil
	}
	seen, err := w.cache.since(w.next)
	return seen.changed, nil, err
}

// scope is what the keys of the watched entries begin with.
func (w *Watcher) scope() string {
	if w.opts.Namespace == "" {
		return ""
	}
	return w.opts.Namespace + "/"
}

// translate says what a change means to this watcher, if anything.
func (w *Watcher) translate(ch *change) (Event, bool) {
	if ch.revision <= w.opts.After && !w.opts.Initial {
		return Event{}, false
	}
	was, is := w.wants(ch.before), w.wants(ch.after)
	switch {
	case was && is:
		return Event{Type: Modified, Entry: ch.after, Revision: ch.revision}, true
	case is:
		return Event{Type: Added, Entry: ch.after, Revision: ch.revision}, true
	case was:
		return Event{Type: Deleted, Entry: ch.leaving(), Revision: ch.revision}, true
	}
	return Event{}, false
}

func (w *Watcher) wants(entry *Entry) bool {
	if entry == nil || !strings.HasPrefix(entry.key, w.scope()) {
		return false
	}
	return w.opts.Match == nil || w.opts.Match(entry)
}
