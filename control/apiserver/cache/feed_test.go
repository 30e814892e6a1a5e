package cache_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/memory"
)

// fed is a running feed of a store, until ctx ends; the test waits for it.
func fed(ctx context.Context, t *testing.T, s store.Store) *cache.Feed {
	t.Helper()
	f := cache.NewFeed(s, "/registry/", nil)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = f.Run(ctx) // it ends because it is told to
	}()
	t.Cleanup(func() { <-ran })
	return f
}

// A cache that shares a feed shows, at once, every write that was acknowledged, to
// its own keys and to others'.
func TestLatest(t *testing.T) {
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	f := fed(ctx, t, s)
	defer cancel()
	c := running(t, cache.Config{Store: s, Feed: f})
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			hits := 0
			for i := range 500 {
				key := fmt.Sprintf("a/%d-%d", w, i)
				rev := create(t, s, key)
				if _, err := s.Create(ctx, "/registry/pods/"+key, nil, 0); err != nil {
					t.Error(err)
				}
				if c.UpToDate() {
					hits++
				} else if _, err := c.Fresh(ctx); err != nil {
					t.Error(err)
				}
				at := c.Revision()
				e, found := c.Get(key)
				if !found || e.Revision() != rev || at <= rev {
					t.Errorf("at revision %d there is no %s of revision %d", at, key, rev)
					return
				}
				if i%2 == 0 { // the tree is written to with and without readers of it
					if shown, _ := c.Snapshot().Get(key); shown != e {
						t.Errorf("a snapshot has another %s", key)
					}
				}
			}
			t.Logf("%d of 500 reads were answered at once", hits)
		})
	}
	all.Wait()
	if !c.UpToDate() {
		if _, err := c.Fresh(ctx); err != nil {
			t.Fatal(err)
		}
		if !c.UpToDate() {
			t.Error("nothing happens, and the cache does not know that it is up to date")
		}
	}
}

// What happens while a cache is being filled is not lost, and not told twice.
func TestFillWhileWriting(t *testing.T) {
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := fed(ctx, t, s)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("a/%d", w)
				create(t, s, key, fmt.Sprintf("n=%d", i))
				if _, err := s.Delete(ctx, prefix+key, 0); err != nil {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	var caches []*cache.Cache
	for range 50 {
		caches = append(caches, running(t, cache.Config{Store: s, Feed: f}))
	}
	close(stop)
	writers.Wait()
	last := create(t, s, "a/last")
	for i, c := range caches {
		now := fresh(t, c)
		if now.Len() != 1 || now.Revision() < last {
			t.Errorf("cache %d has %d entries at revision %d: %s", i, now.Len(), now.Revision(), strings.Join(listed(now, nil), " "))
		}
	}
}

// forgetful fails watches for a while, and then has forgotten what they missed.
type forgetful struct {
	store.Store
	fail func() error
	once sync.Once
}

func (s *forgetful) Watch(ctx context.Context, prefix string, after int64) (store.Watcher, error) {
	w, err := s.Store.Watch(ctx, prefix, after)
	if err != nil {
		return nil, err
	}
	s.once.Do(func() { w = &failing{Watcher: w, fail: s.fail} })
	return w, nil
}

type failing struct {
	store.Watcher
	fail func() error
}

func (w *failing) Next(ctx context.Context) ([]store.Event, error) {
	if err := w.fail(); err != nil {
		return nil, err
	}
	return w.Watcher.Next(ctx)
}

// After a gap that the store cannot fill, caches are filled anew, and nobody takes
// the old state for the present one.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(memory.Config{})
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		broken := make(chan struct{})
		lost := &forgetful{Store: s, fail: func() error {
			<-broken
			return fmt.Errorf("gone: %w", store.ErrCompacted)
		}}
		f := cache.NewFeed(lost, "/registry/", nil)
		ended := make(chan error, 2)
		go func() { ended <- f.Run(ctx) }()
		create(t, s, "a/1")
		c := cache.New(cache.Config{Store: lost, Feed: f, Prefix: prefix, Decode: decode})
		go func() { ended <- c.Run(ctx) }()
		<-c.Ready()
		create(t, s, "a/2")
		if _, err := s.Delete(ctx, prefix+"a/1", 0); err != nil {
			t.Fatal(err)
		}
		w, err := c.Watch(cache.WatchOptions{Initial: true})
		if err != nil {
			t.Fatal(err)
		}
		close(broken)
		now, err := c.Fresh(ctx)
		if got := strings.Join(listed(now, err), " "); !strings.Contains(got, "a/2") || strings.Contains(got, "a/1") {
			t.Errorf("after the gap: %s", got)
		}
		for range w.C() {
		}
		if w.Err() == nil {
			t.Error("a watcher does not hear of the gap")
		}
		rev := create(t, s, "a/3")
		time.Sleep(time.Second)
		if now := fresh(t, c); now.Len() != 2 || now.Revision() < rev {
			t.Errorf("%d entries at %d", now.Len(), now.Revision())
		}
		cancel()
		<-ended
		<-ended
	})
}
