package cache_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	kruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/control/store"
)

const nodeField = "node"

// labelled tells the label "node" as a field.
func labelled(obj kruntime.Object) fields.Set {
	labels := obj.(interface{ GetLabels() map[string]string }).GetLabels()
	return fields.Set{nodeField: labels[nodeField]}
}

func onNode(node string) func(*cache.Entry) bool {
	return func(e *cache.Entry) bool { return e.Fields()[nodeField] == node }
}

// collect reads a watcher until it has shown the revision, as text.
func collect(t *testing.T, w *cache.Watcher, until int64) (seen []string) {
	t.Helper()
	for batch := range w.C() {
		for _, e := range batch {
			text := fmt.Sprint(e.Type, " ", e.Revision)
			if e.Entry != nil {
				text += " " + e.Entry.Key()
			}
			seen = append(seen, text)
			if e.Revision >= until {
				return seen
			}
		}
	}
	t.Fatalf("the watch ended: %v", w.Err())
	return nil
}

// A watcher that names the one value it wants sees what one that looks at everything
// does, whenever it begins: with the state, in the window, before the window.
func TestExactSeesTheSame(t *testing.T) {
	s := newStore(t)
	c := running(t, cache.Config{Store: s, Fields: labelled, Window: 2000})
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test's
	write := func() {
		key, node := fmt.Sprintf("a/%02d", random.IntN(40)), fmt.Sprintf("node=%d", random.IntN(4))
		old := stored(t, s, key)
		switch {
		case old == 0:
			create(t, s, key, node)
		case random.IntN(3) == 0:
			if _, err := s.Delete(t.Context(), prefix+key, 0); err != nil {
				t.Fatal(err)
			}
		default:
			if _, err := s.Update(t.Context(), prefix+key, object(key, node), old, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 100 {
		write()
	}
	type pair struct {
		name            string
		exact, ordinary *cache.Watcher
	}
	var pairs []pair
	begin := func() {
		for _, start := range []cache.WatchOptions{{Initial: true}, {After: fresh(t, c).Revision() - 30}, {After: fresh(t, c).Revision()}} {
			for _, exact := range []cache.Exact{{Field: nodeField, Value: "1"}, {Field: cache.NameField, Value: "07"}} {
				p, opts := pair{name: fmt.Sprintf("%+v %+v", start, exact)}, start
				opts.Match = onNode(exact.Value)
				if exact.Field == cache.NameField {
					opts.Match = func(e *cache.Entry) bool { return e.Key() == "a/"+exact.Value }
				}
				p.ordinary = watching(t, c, opts)
				opts.Exact = exact
				p.exact = watching(t, c, opts)
				pairs = append(pairs, p)
			}
		}
	}
	for range 5 {
		begin()
		for range 100 {
			write()
		}
	}
	create(t, s, "b/other", "node=1")
	if stored(t, s, "a/07") != 0 {
		if _, err := s.Delete(t.Context(), prefix+"a/07", 0); err != nil {
			t.Fatal(err)
		}
	}
	last := create(t, s, "a/07", "node=1") // which all see
	for _, p := range pairs {
		want, got := collect(t, p.ordinary, last), collect(t, p.exact, last)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", p.name, got, want)
		}
	}
}

// stored is the revision of what is stored under the key, or 0.
func stored(t *testing.T, s store.Store, key string) int64 {
	t.Helper()
	entry, _, err := s.Get(t.Context(), prefix+key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	return entry.Revision
}

func watching(t *testing.T, c *cache.Cache, opts cache.WatchOptions) *cache.Watcher {
	t.Helper()
	w, err := c.Watch(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// What happens to one node's objects is looked at by that node's watcher alone.
func TestExactCostsOnlyWhomItConcerns(t *testing.T) {
	const nodes = 200
	s := newStore(t)
	c := running(t, cache.Config{Store: s, Fields: labelled})
	var looked atomic.Int64
	all := make([]*cache.Watcher, nodes)
	for i := range all {
		mine := onNode(fmt.Sprint(i))
		all[i] = watching(t, c, cache.WatchOptions{After: fresh(t, c).Revision(), Exact: cache.Exact{Field: nodeField, Value: fmt.Sprint(i)},
			Match: func(e *cache.Entry) bool {
				looked.Add(1)
				return mine(e)
			}})
	}
	for i, w := range all { // all follow the lanes now
		collect(t, w, create(t, s, fmt.Sprintf("a/first-%d", i), fmt.Sprintf("node=%d", i)))
	}
	before := looked.Load()
	for i, w := range all {
		collect(t, w, create(t, s, fmt.Sprintf("a/second-%d", i), fmt.Sprintf("node=%d", i)))
	}
	if n := looked.Load() - before; n != nodes {
		t.Errorf("%d objects were looked at %d times", nodes, n)
	}
}

// One that does not read is given up, without harm to the others, and a cache that
// starts anew gives up all.
func TestExactThatFallsBehind(t *testing.T) {
	const window = 50
	s := newStore(t)
	c := running(t, cache.Config{Store: s, Fields: labelled, Window: window})
	opts := cache.WatchOptions{Initial: true, Exact: cache.Exact{Field: nodeField, Value: "1"}, Match: onNode("1")}
	slow, other := watching(t, c, opts), watching(t, c, opts)
	collect(t, slow, 0)
	collect(t, other, 0)
	for i := range 20 * window {
		collect(t, other, create(t, s, fmt.Sprintf("a/%d", i), "node=1"))
	}
	for range slow.C() {
	}
	if err := slow.Err(); !errors.Is(err, cache.ErrBehind) {
		t.Errorf("the slow reader's watch ended with %v", err)
	}
}

// A bookmark tells how far the watch has come though nothing of its value has moved.
func TestExactBookmark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		c := running(t, cache.Config{Store: s, Fields: labelled})
		w := watching(t, c, cache.WatchOptions{Initial: true, Bookmarks: true, Exact: cache.Exact{Field: nodeField, Value: "1"}, Match: onNode("1")})
		collect(t, w, 0)
		rev := create(t, s, "a/x", "node=2")
		began := time.Now()
		batch := <-w.C()
		if len(batch) != 1 || batch[0].Type != cache.Bookmark || batch[0].Revision < rev {
			t.Errorf("got %+v, want a bookmark of revision %d", batch, rev)
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("the bookmark came after %v", took)
		}
		w.Stop()
	})
}

// Shortly before a watch is over, a bookmark says from where its reader can go on.
func TestLastBookmark(t *testing.T) {
	for _, exact := range []cache.Exact{{}, {Field: nodeField, Value: "1"}} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore(t)
			c := running(t, cache.Config{Store: s, Fields: labelled})
			began := time.Now()
			w := watching(t, c, cache.WatchOptions{Initial: true, Bookmarks: true, Lasts: 40 * time.Second, Exact: exact, Match: onNode("1")})
			collect(t, w, 0)
			rev := create(t, s, "a/x", "node=2")
			batch := <-w.C()
			if len(batch) != 1 || batch[0].Type != cache.Bookmark || batch[0].Revision < rev {
				t.Errorf("%v: got %+v, want a bookmark of revision %d", exact, batch, rev)
			}
			if took := time.Since(began); took < 38*time.Second || took > 39*time.Second {
				t.Errorf("%v: the bookmark came after %v", exact, took)
			}
			w.Stop()
		})
	}
}
