package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/sampan-dev/sampan/control/store"
)

// A watch from before the window begins is served out of the store's own
// history until it has come to where the window goes on: a client that was away
// for long, or across a restart of the server, need not list again as long as
// the store remembers.

// deliverPast sends what happened after opts.After, and finds the watcher's
// place in the window.
func (w *Watcher) deliverPast() bool {
	ctx, cancel := w.context()
	defer cancel()
	history, err := w.cache.cfg.Store.Watch(ctx, w.cache.cfg.Prefix, w.opts.After)
	if err != nil {
		return w.fail(err)
	}
	defer history.Stop()
	go w.urge(ctx, history)
	for {
		batch, err := history.Next(ctx)
		if err != nil {
			return w.fail(err)
		}
		if !w.deliverEvents(batch) {
			return false
		}
		if w.enterWindow(batch[len(batch)-1].Entry.Revision) {
			return true
		}
	}
}

// context ends when the watcher is stopped, or its cache.
func (w *Watcher) context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		select {
		case <-w.stop:
		case <-w.cache.done:
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// fail ends the watcher with err, unless somebody has ended it.
func (w *Watcher) fail(err error) bool {
	select {
	case <-w.stop:
	case <-w.cache.done:
		w.err = fmt.Errorf("watch %q: %w", w.cache.cfg.Prefix, store.ErrClosed)
	default:
		w.err = err
	}
	return false
}

// urge asks for progress until ctx ends: without it the end of the history would
// show only with the next write.
func (w *Watcher) urge(ctx context.Context, history store.Watcher) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		if err := history.RequestProgress(ctx); err != nil && ctx.Err() == nil {
			w.cache.cfg.Log.DebugContext(ctx, "watch cannot ask for progress", "prefix", w.cache.cfg.Prefix, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// deliverEvents sends what the reader wants of a batch of the store's events.
func (w *Watcher) deliverEvents(events []store.Event) bool {
	var changes []*change
	for _, event := range events {
		if event.Type != store.Progress {
			changes = append(changes, w.cache.pastChange(event))
		}
	}
	if !w.together(changes) {
		return false
	}
	var batch []Event
	for _, ch := range changes {
		if e, ok := w.translate(ch); ok {
			batch = append(batch, e)
			w.sent = e.Revision
		}
	}
	for len(batch) > 0 {
		part := batch[:min(len(batch), maxBatch)]
		batch = batch[len(part):]
		select {
		case w.events <- part:
		case <-w.cache.done:
			w.err = fmt.Errorf("watch %q: %w", w.cache.cfg.Prefix, store.ErrClosed)
			return false
		case <-w.stop:
			return false
		}
	}
	return true
}

// pastChange makes a change of an event of the store. What preceded a write may
// have been forgotten by the store; then it is taken to have been the same.
func (c *Cache) pastChange(event store.Event) *change {
	ch := &change{revision: event.Entry.Revision}
	if event.Type == store.Put {
		ch.after = c.entry(event.Entry)
	}
	switch {
	case event.Previous != nil:
		ch.before = c.entry(*event.Previous)
	case ch.after != nil && event.Entry.Created != event.Entry.Revision:
		ch.before = ch.after
	}
	return ch
}

// enterWindow puts the watcher, who has seen everything up to revision, to its
// place in the window; false when the window begins later.
func (w *Watcher) enterWindow(revision int64) bool {
	c := w.cache
	c.mu.RLock()
	defer c.mu.RUnlock()
	if revision < c.floor {
		return false
	}
	w.next = c.first + uint64(c.placeAfter(revision))
	w.opts.After = revision // the store's history may be ahead of the window
	return true
}
