package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sampan-dev/sampan/control/store"
)

// maxHeld bounds the events that are held for one cache while it is being filled.
const maxHeld = 100_000

// Feed is one watch of a store that many caches share, each for a prefix of its
// own. A kind that nobody asks for costs nothing, one that somebody follows no
// watch of its own; and all caches know of every revision that has passed, though
// nothing of theirs was in it. All its methods may be called concurrently; Run is
// called once.
type Feed struct {
	st     store.Store
	prefix string
	log    *slog.Logger
	wanted chan struct{} // closed when the first cache subscribes
	want   sync.Once

	// seen: every event up to this revision is in the caches that follow.
	seen      atomic.Int64
	following atomic.Pointer[store.Watcher] // while there is one, for asking progress

	// mu guards what follows. It is taken before a cache's.
	mu      sync.Mutex
	began   chan struct{} // closed when the store is watched for the first time
	by      map[string][]*share
	news    chan struct{} // closed when seen moves; nil while nobody waits
	stopped error         // why Run has ended
}

// share is a cache's part of a feed. The feed's lock guards it.
type share struct {
	cache *Cache
	// live shares are told of events at once; for others they are held.
	live  bool
	since int64 // what the feed had seen before
	held  []store.Event
	lost  chan struct{} // closed when the cache has to begin anew
	err   error         // why

	batch []store.Event // used by distribute only
}

// NewFeed returns a feed of the keys of st that begin with prefix. It watches when
// the first cache wants something.
func NewFeed(st store.Store, prefix string, log *slog.Logger) *Feed {
	if log == nil {
		log = slog.Default()
	}
	return &Feed{st: st, prefix: prefix, log: log, wanted: make(chan struct{}), began: make(chan struct{}), by: map[string][]*share{}}
}

// Run follows the store until ctx ends or the store is closed, and returns the
// cause. Failures in between are logged and tried again.
func (f *Feed) Run(ctx context.Context) error {
	select {
	case <-f.wanted:
	case <-ctx.Done():
		return f.end(context.Cause(ctx))
	}
	for failures := 0; ; {
		start := f.seen.Load()
		err := f.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return f.end(context.Cause(ctx))
		case errors.Is(err, store.ErrClosed):
			return f.end(fmt.Errorf("watch of %q: %w", f.prefix, err))
		case errors.Is(err, store.ErrCompacted):
			f.beginAnew(err)
		}
		if failures++; f.seen.Load() > start {
			failures = 1 // there was progress
		}
		delay := again.After(failures)
		f.log.WarnContext(ctx, "watch caches lost the store", "prefix", f.prefix, "error", err, "again_in", delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
}

// follow hands events on until that fails.
func (f *Feed) follow(ctx context.Context) error {
	after := f.seen.Load()
	if after == 0 {
		var err error
		if after, err = f.st.Revision(ctx); err != nil {
			return err
		}
	}
	watcher, err := f.st.Watch(store.WithoutPrevious(ctx), f.prefix, after)
	if err != nil {
		return err
	}
	defer watcher.Stop()
	f.following.Store(&watcher)
	defer f.following.Store(nil)
	f.begin(after)
	for {
		batch, err := watcher.Next(ctx)
		if err != nil {
			return err
		}
		f.distribute(batch)
	}
}

// begin says that events after a revision are on their way.
func (f *Feed) begin(after int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen.Store(after)
	select {
	case <-f.began:
	default:
		close(f.began)
	}
	f.announceLocked() // whoever waits may ask for progress now
}

// distribute gives a batch of events to the caches that they are for.
func (f *Feed) distribute(batch []store.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var touched []*share
	for _, event := range batch {
		if event.Type == store.Progress {
			continue
		}
		for i := len(f.prefix); i < len(event.Entry.Key); i++ {
			if event.Entry.Key[i] != '/' {
				continue
			}
			for _, s := range f.by[event.Entry.Key[:i+1]] {
				if len(s.batch) == 0 {
					touched = append(touched, s)
				}
				s.batch = append(s.batch, event)
			}
		}
	}
	for _, s := range touched {
		s.take(s.batch)
		s.batch = nil
	}
	f.seen.Store(max(f.seen.Load(), batch[len(batch)-1].Entry.Revision))
	f.announceLocked()
}

// take applies events, or holds them until the cache is filled.
func (s *share) take(batch []store.Event) {
	switch {
	case s.live:
		s.cache.apply(batch)
	case len(s.held)+len(batch) > maxHeld:
		s.lose(fmt.Errorf("more than %d events while the cache was filled", maxHeld))
	default:
		s.held = append(s.held, batch...)
	}
}

func (s *share) lose(err error) {
	if s.err == nil {
		s.err, s.live, s.held = err, false, nil
		close(s.lost)
	}
}

// subscribe holds what happens to a cache's keys from now on, so that it can be
// filled meanwhile. It waits until the store is watched.
func (f *Feed) subscribe(ctx context.Context, c *Cache) (*share, error) {
	f.want.Do(func() { close(f.wanted) })
	f.mu.Lock()
	began := f.began
	f.mu.Unlock()
	select {
	case <-began:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped != nil {
		return nil, f.stopped
	}
	s := &share{cache: c, since: f.seen.Load(), lost: make(chan struct{})}
	f.by[c.cfg.Prefix] = append(f.by[c.cfg.Prefix], s)
	return s, nil
}

// enter lets a cache that has been filled follow.
func (f *Feed) enter(s *share) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	filled := s.cache.Revision()
	if filled < s.since {
		return fmt.Errorf("filled at revision %d after %d was told of", filled, s.since)
	}
	for len(s.held) > 0 && s.held[0].Entry.Revision <= filled {
		s.held = s.held[1:]
	}
	s.cache.apply(s.held)
	s.held, s.live = nil, true
	s.cache.fed.Store(true)
	return nil
}

func (f *Feed) leave(s *share) {
	s.cache.fed.Store(false)
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.by[s.cache.cfg.Prefix]
	kept := make([]*share, 0, len(all))
	for _, other := range all {
		if other != s {
			kept = append(kept, other)
		}
	}
	if f.by[s.cache.cfg.Prefix] = kept; len(kept) == 0 {
		delete(f.by, s.cache.cfg.Prefix)
	}
}

// beginAnew makes all caches fill themselves again: nobody knows what happened
// meanwhile.
func (f *Feed) beginAnew(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loseAll(err)
	f.seen.Store(0)
	f.began = make(chan struct{})
}

func (f *Feed) loseAll(err error) {
	for _, shares := range f.by {
		for _, s := range shares {
			s.cache.fed.Store(false)
			s.lose(err)
		}
	}
}

func (f *Feed) end(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = err
	f.loseAll(err)
	select {
	case <-f.began:
	default:
		close(f.began) // whoever waits for it finds out
	}
	f.announceLocked()
	return err
}

// changed is closed when seen has moved since the call.
func (f *Feed) changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.news == nil {
		f.news = make(chan struct{})
	}
	return f.news
}

func (f *Feed) announceLocked() {
	if f.news != nil {
		close(f.news)
		f.news = nil
	}
}

// askProgress makes the store say how far it is, and reports whether there was a
// watch to say it on.
func (f *Feed) askProgress(ctx context.Context) bool {
	watcher := f.following.Load()
	if watcher == nil {
		return false
	}
	if err := (*watcher).RequestProgress(ctx); err != nil {
		f.log.DebugContext(ctx, "watch caches cannot ask for progress", "prefix", f.prefix, "error", err)
	}
	return true
}
