package memory

import (
	"context"
	"fmt"
	"strings"

	"github.com/sampan-dev/sampan/control/store"
)

// maxBatch is the largest number of events that Next returns at once.
const maxBatch = 1000

// watcher is a place in the store's log. It has no queue of its own: a watcher
// that does not read costs nothing, and fails once the log has moved past it.
type watcher struct {
	s      *Store
	ctx    context.Context // ends the watch
	prefix string
	wake   chan struct{} // holds one token when there may be something to read
	done   chan struct{} // closed by Stop

	// The store's lock guards what follows.
	stopped bool
	forsake func() bool // stops waiting for ctx to end
	// pending says that the log may hold events after cursor for this watcher.
	// When it is false, everything so far has been delivered.
	pending  bool
	cursor   int64
	progress bool
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, after int64) (store.Watcher, error) {
	if err := s.enter(ctx); err != nil {
		return nil, fmt.Errorf("watch %q: %w", prefix, err)
	}
	defer s.mu.Unlock()
	if after+1 < s.floor {
		return nil, fmt.Errorf("watch %q after %d, kept since %d: %w", prefix, after, s.floor, store.ErrCompacted)
	}
	w := &watcher{
		s: s, ctx: ctx, prefix: prefix, cursor: after,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	past := s.log[s.after(after):]
	for i := 0; i < len(past) && !w.pending; i++ {
		w.notice(past[i])
	}
	s.watchers[w] = struct{}{}
	w.forsake = context.AfterFunc(ctx, w.Stop)
	return w, nil
}

// notice is told of every event as it happens, under the store's lock. The first
// unread one moves the cursor right before it, so that what lies between may be
// forgotten.
func (w *watcher) notice(event store.Event) {
	if w.pending || event.Entry.Revision <= w.cursor || !strings.HasPrefix(event.Entry.Key, w.prefix) {
		return
	}
	w.pending = true
	w.cursor = event.Entry.Revision - 1
	w.wakeUp()
}

func (w *watcher) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Next implements store.Watcher. One caller at a time.
func (w *watcher) Next(ctx context.Context) ([]store.Event, error) {
	for {
		if w.ctx.Err() != nil {
			return nil, fmt.Errorf("watch %q: %w", w.prefix, context.Cause(w.ctx))
		}
		events, err := w.take()
		if err != nil {
			return nil, fmt.Errorf("watch %q: %w", w.prefix, err)
		}
		if len(events) > 0 {
			return events, nil
		}
		select {
		case <-w.wake:
		case <-w.done:
		case <-w.s.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("watch %q: %w", w.prefix, context.Cause(ctx))
		}
	}
}

// take returns what is there, perhaps nothing.
func (w *watcher) take() ([]store.Event, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.stopped || w.s.closed {
		return nil, store.ErrClosed
	}
	var batch []store.Event
	if w.pending {
		if w.cursor+1 < w.s.floor {
			return nil, fmt.Errorf("read up to %d, kept since %d: %w", w.cursor, w.s.floor, store.ErrCompacted)
		}
		batch = w.collect()
	}
	if w.progress && !w.pending {
		w.progress = false
		batch = append(batch, store.Event{Type: store.Progress, Entry: store.Entry{Revision: w.s.revision}})
	}
	return batch, nil
}

// collect moves the cursor over at most maxBatch matching events. Every revision
// of this store is one event, so that any cut is between revisions.
func (w *watcher) collect() []store.Event {
	var batch []store.Event
	log := w.s.log[w.s.after(w.cursor):]
	for i := range log {
		if len(batch) == maxBatch {
			return batch
		}
		w.cursor = log[i].Entry.Revision
		if strings.HasPrefix(log[i].Entry.Key, w.prefix) {
			batch = append(batch, log[i])
		}
	}
	w.pending = false
	return batch
}

// RequestProgress implements store.Watcher.
func (w *watcher) RequestProgress(ctx context.Context) error {
	if err := w.s.enter(ctx); err != nil {
		return fmt.Errorf("request progress of %q: %w", w.prefix, err)
	}
	defer w.s.mu.Unlock()
	if w.stopped {
		return fmt.Errorf("request progress of %q: %w", w.prefix, store.ErrClosed)
	}
	w.progress = true
	w.wakeUp()
	return nil
}

// Stop implements store.Watcher.
func (w *watcher) Stop() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.stopped {
		return
	}
	w.stopped = true
	w.forsake()
	close(w.done)
	delete(w.s.watchers, w)
}
