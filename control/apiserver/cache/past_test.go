package cache_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
)

// A watch that begins in the store's history may come to its end before the cache
// does: what it told out of the history it does not tell again out of the window.
func TestHistoryAheadOfWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		create(t, s, "a/1")
		var hold atomic.Pointer[chan struct{}]
		c := running(t, cache.Config{Store: &forgetful{Store: s, fail: func() error { // which fails not, but waits
			if held := hold.Load(); held != nil {
				<-*held
			}
			return nil
		}}})
		held := make(chan struct{})
		hold.Store(&held)
		create(t, s, "a/2") // what Next, already under way, returns
		synctest.Wait()
		create(t, s, "a/3")
		w, err := c.Watch(cache.WatchOptions{After: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		var seen []string
		read := func() {
			synctest.Wait()
			for batch := slowless(w); len(batch) > 0; batch = slowless(w) {
				for _, e := range batch {
					seen = append(seen, e.Entry.Key())
				}
				synctest.Wait()
			}
		}
		read()
		hold.Store(nil)
		close(held)
		read()
		create(t, s, "a/4")
		read()
		if got := strings.Join(seen, " "); got != "a/1 a/2 a/3 a/4" {
			t.Errorf("saw %s", got)
		}
	})
}
