package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/sampan-dev/sampan/control/store"
)

// streamKey is the metadata that gives each watcher a stream of its own. On a
// shared one, etcd answers a request for progress only when all its watchers
// have caught up, and then to all of them.
const streamKey = "sampan-watch"

// watcher is a store.Watcher on one watch of an external etcd.
type watcher struct {
	s      *Store
	parent context.Context // as Watch got it
	ctx    context.Context // also ended by Stop; names the stream
	cancel context.CancelFunc
	prefix string
	events clientv3.WatchChan
	failed error // what Next keeps returning
}

// Watch implements store.Store. Whether after is still kept shows in Next.
func (s *Store) Watch(ctx context.Context, prefix string, after int64) (store.Watcher, error) {
	if err := s.enter(ctx); err != nil {
		return nil, fmt.Errorf("watch %q: %w", prefix, err)
	}
	if s.here != nil {
		return s.watchHere(ctx, prefix, after)
	}
	own, cancel := context.WithCancel(ctx)
	own = metadata.AppendToOutgoingContext(own, streamKey, strconv.FormatUint(s.watchers.Add(1), 10))
	opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(after + 1)}
	if store.PreviousWanted(ctx) {
		opts = append(opts, clientv3.WithPrevKV())
	}
	events := s.client.Watch(own, s.prefix+prefix, opts...)
	return &watcher{s: s, parent: ctx, ctx: own, cancel: cancel, prefix: prefix, events: events}, nil
}

// Next implements store.Watcher. One caller at a time.
func (w *watcher) Next(ctx context.Context) ([]store.Event, error) {
	for w.failed == nil {
		select {
		case resp, ok := <-w.events:
			batch, err := w.read(resp, ok)
			if err != nil {
				w.failed = fmt.Errorf("watch %q: %w", w.prefix, err)
				w.cancel()
			}
			if len(batch) > 0 {
				return batch, nil
			}
		case <-w.s.done:
			w.failed = fmt.Errorf("watch %q: %w", w.prefix, store.ErrClosed)
		case <-ctx.Done():
			return nil, fmt.Errorf("watch %q: %w", w.prefix, context.Cause(ctx))
		}
	}
	return nil, w.failed
}

// read makes a batch of one response. etcd never spreads a revision over two,
// unless asked to fragment.
func (w *watcher) read(resp clientv3.WatchResponse, ok bool) ([]store.Event, error) {
	if !ok || resp.Err() != nil {
		return nil, w.reason(resp)
	}
	if resp.IsProgressNotify() {
		return []store.Event{{Type: store.Progress, Entry: store.Entry{Revision: resp.Header.GetRevision()}}}, nil
	}
	batch := make([]store.Event, 0, len(resp.Events))
	for _, event := range resp.Events {
		next := store.Event{Type: store.Put, Entry: w.s.entry(event.Kv)}
		if event.PrevKv != nil {
			previous := w.s.entry(event.PrevKv)
			next.Previous = &previous
		}
		if event.Type == clientv3.EventTypeDelete {
			next.Type = store.Delete
			next.Entry.Value = nil
			if next.Previous != nil {
				next.Entry.Created = next.Previous.Created
			}
		}
		batch = append(batch, next)
	}
	return batch, nil
}

// reason says why the watch ended.
func (w *watcher) reason(resp clientv3.WatchResponse) error {
	err := resp.Err()
	switch {
	case w.parent.Err() != nil:
		return context.Cause(w.parent)
	case w.ctx.Err() != nil, w.s.closed.Load():
		return store.ErrClosed
	case resp.CompactRevision != 0, errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("kept since %d: %w", resp.CompactRevision, store.ErrCompacted)
	case err == nil:
		return errors.New("etcd ended the watch")
	}
	return w.s.kind(w.parent, err)
}

// RequestProgress implements store.Watcher. etcd leaves the request unanswered
// while the watcher is catching up with the past: ask again.
func (w *watcher) RequestProgress(ctx context.Context) error {
	if err := w.s.enter(ctx); err != nil {
		return fmt.Errorf("request progress of %q: %w", w.prefix, err)
	}
	if w.ctx.Err() != nil {
		return fmt.Errorf("request progress of %q: %w", w.prefix, store.ErrClosed)
	}
	if err := w.s.client.RequestProgress(w.ctx); err != nil {
		return fmt.Errorf("request progress of %q: %w", w.prefix, w.s.kind(ctx, err))
	}
	return nil
}

// Stop implements store.Watcher.
func (w *watcher) Stop() { w.cancel() }
