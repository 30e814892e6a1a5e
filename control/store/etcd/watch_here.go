package etcd

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/sampan-dev/sampan/control/store"
)

// hereWatcher is a store.Watcher on the database of a member in this process. By
// way of etcd's client a watch is ten goroutines and four queues; a cluster has a
// watch for each kind.
type hereWatcher struct {
	s      *Store
	parent context.Context // as Watch got it
	ctx    context.Context // also ended by Stop
	cancel context.CancelFunc
	prefix string
	stream mvcc.WatchStream
	id     mvcc.WatchID
	failed error // what Next keeps returning
	// previous: events say what preceded them, which is a read for each.
	previous bool
}

// watchHere begins a watch of the keys with a prefix.
func (s *Store) watchHere(ctx context.Context, prefix string, after int64) (store.Watcher, error) {
	key := []byte(s.prefix + prefix)
	end := []byte(clientv3.GetPrefixRangeEnd(string(key)))
	if len(key) == 0 {
		key, end = []byte{0}, []byte{} // all there is
	}
	s.here.ending.RLock()
	defer s.here.ending.RUnlock()
	if s.here.ended {
		return nil, fmt.Errorf("watch %q: %w", prefix, store.ErrClosed)
	}
	own, cancel := context.WithCancel(ctx)
	w := &hereWatcher{s: s, parent: ctx, ctx: own, cancel: cancel, prefix: prefix, stream: s.here.kv.NewWatchStream(),
		previous: store.PreviousWanted(ctx)}
	var err error
	if w.id, err = w.stream.Watch(own, clientv3.AutoWatchID, key, end, after+1); err != nil {
		cancel()
		w.stream.Close()
		return nil, fmt.Errorf("watch %q: %w", prefix, err)
	}
	context.AfterFunc(own, w.stream.Close)
	return w, nil
}

// maxTogether is how many events one batch brings together at most, unless one
// answer of etcd's has more.
const maxTogether = 512

// Next implements store.Watcher. One caller at a time.
func (w *hereWatcher) Next(ctx context.Context) ([]store.Event, error) {
	for w.failed == nil {
		select {
		case resp, ok := <-w.stream.Chan():
			if batch := w.gather(resp, ok); len(batch) > 0 {
				return batch, nil
			}
		case <-w.s.done:
			w.fail(store.ErrClosed)
		case <-ctx.Done():
			return nil, fmt.Errorf("watch %q: %w", w.prefix, context.Cause(ctx))
		}
	}
	return nil, w.failed
}

// gather makes one batch of an answer and of those that wait behind it. Etcd makes
// one for each write, into a short queue: who is not through with it in time is set
// aside, and gets what he has missed read from the database.
func (w *hereWatcher) gather(resp mvcc.WatchResponse, ok bool) []store.Event {
	var batch []store.Event
	for {
		var err error
		if batch, err = w.read(batch, resp, ok); err != nil {
			w.fail(err) // which the next call tells
			break
		}
		if len(batch) >= maxTogether {
			break
		}
		select {
		case resp, ok = <-w.stream.Chan():
			continue
		default:
		}
		break
	}
	if len(batch) == 0 {
		return nil
	}
	// Watchers are told while a write ends: who has heard of it may read it.
	for w.s.here.revision() < batch[len(batch)-1].Entry.Revision {
		runtime.Gosched()
	}
	return batch
}

// fail ends the watch.
func (w *hereWatcher) fail(err error) {
	w.failed = fmt.Errorf("watch %q: %w", w.prefix, err)
	w.cancel()
}

// read adds an answer's events to a batch.
func (w *hereWatcher) read(batch []store.Event, resp mvcc.WatchResponse, ok bool) ([]store.Event, error) {
	switch {
	case !ok && w.parent.Err() != nil:
		return batch, context.Cause(w.parent)
	case !ok:
		return batch, store.ErrClosed
	case resp.CompactRevision != 0:
		return batch, fmt.Errorf("kept since %d: %w: %w", resp.CompactRevision, store.ErrCompacted, rpctypes.ErrCompacted)
	case len(resp.Events) == 0:
		return append(batch, store.Event{Type: store.Progress, Entry: store.Entry{Revision: resp.Revision}}), nil
	}
	for _, event := range resp.Events {
		next, err := w.event(event)
		if err != nil {
			return batch, err
		}
		batch = append(batch, next)
	}
	return batch, nil
}

func (w *hereWatcher) event(event *mvccpb.Event) (store.Event, error) {
	next := store.Event{Type: store.Put, Entry: w.s.entry(event.Kv)}
	gone := event.Type == mvccpb.Event_DELETE
	if w.previous && (gone || event.Kv.CreateRevision != event.Kv.ModRevision) {
		previous, _, err := w.s.here.get(w.ctx, string(event.Kv.Key), event.Kv.ModRevision-1)
		switch {
		case errors.Is(err, store.ErrClosed):
			return next, err
		case err == nil && previous != nil: // else it has been compacted meanwhile
			entry := w.s.entry(previous)
			next.Previous = &entry
		}
	}
	if gone {
		next.Type, next.Entry.Value = store.Delete, nil
		if next.Previous != nil {
			next.Entry.Created = next.Previous.Created
		}
	}
	return next, nil
}

// RequestProgress implements store.Watcher. A watcher that is catching up with the
// past leaves the request unanswered: ask again.
func (w *hereWatcher) RequestProgress(ctx context.Context) error {
	if err := w.s.enter(ctx); err != nil {
		return fmt.Errorf("request progress of %q: %w", w.prefix, err)
	}
	if w.ctx.Err() != nil {
		return fmt.Errorf("request progress of %q: %w", w.prefix, store.ErrClosed)
	}
	w.stream.RequestProgress(w.id)
	return nil
}

// Stop implements store.Watcher.
func (w *hereWatcher) Stop() { w.cancel() }
