package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/control/store/memory"
)

const prefix = "/registry/configmaps/"

// object is a stored config map with labels "name=value".
func object(key string, labels ...string) []byte {
	namespace, name, _ := strings.Cut(key, "/")
	m := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{}}}
	for _, label := range labels {
		k, v, _ := strings.Cut(label, "=")
		m.Labels[k] = v
	}
	data, err := json.Marshal(&m)
	if err != nil {
		panic(err) // a config map can be marshalled
	}
	return data
}

func decode(value []byte) (kruntime.Object, error) {
	m := new(corev1.ConfigMap)
	return m, json.Unmarshal(value, m)
}

// running is a filled cache over a store, stopped when the test ends.
func running(t *testing.T, cfg cache.Config) *cache.Cache {
	t.Helper()
	cfg.Prefix = prefix
	if cfg.Decode == nil {
		cfg.Decode = decode
	}
	c := cache.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	<-c.Ready()
	return c
}

func newStore(t *testing.T) *memory.Store {
	s := memory.New(memory.Config{})
	t.Cleanup(func() { s.Close() })
	return s
}

func create(t *testing.T, s store.Store, key string, labels ...string) int64 {
	t.Helper()
	rev, err := s.Create(t.Context(), prefix+key, object(key, labels...), 0)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func fresh(t *testing.T, c *cache.Cache) cache.Snapshot {
	t.Helper()
	snapshot, err := c.Fresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// A snapshot shows the same for ever, whatever is written later.
func TestSnapshotNeverChanges(t *testing.T) {
	s := newStore(t)
	c := running(t, cache.Config{Store: s})
	for i := range 200 {
		create(t, s, fmt.Sprintf("a/%03d", i), "n=1")
	}
	before := fresh(t, c)
	want := strings.Join(listed(before, nil), "\n")
	for i := range 200 {
		key := fmt.Sprintf("a/%03d", i)
		if _, err := s.Delete(t.Context(), prefix+key, 0); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			create(t, s, key, "n=2")
		}
		create(t, s, fmt.Sprintf("a/%03dx", i))
	}
	if now := fresh(t, c); now.Len() != 300 {
		t.Errorf("now %d entries, want 300", now.Len())
	}
	if got := strings.Join(listed(before, nil), "\n"); got != want {
		t.Errorf("the snapshot of revision %d has changed", before.Revision())
	}
	past, err := c.At(t.Context(), before.Revision())
	if got := strings.Join(listed(past, err), "\n"); got != want {
		t.Errorf("revision %d looks different from later on", before.Revision())
	}
}

// Everybody gets the same object; the garbage collector may take it when nobody
// holds it, and then it is decoded again.
func TestDecodedOnce(t *testing.T) {
	s := newStore(t)
	var decoded atomic.Int64
	c := running(t, cache.Config{Store: s, Decode: func(value []byte) (kruntime.Object, error) {
		decoded.Add(1)
		return decode(value)
	}})
	create(t, s, "a/x")
	entry, ok := fresh(t, c).Get("a/x")
	if !ok {
		t.Fatal("not found")
	}
	held := entry.Object()
	for range 3 {
		runtime.GC()
		if entry.Object() != held {
			t.Fatal("another object while the first is held")
		}
	}
	if n := decoded.Load(); n != 1 {
		t.Fatalf("decoded %d times", n)
	}
	runtime.KeepAlive(held) // and no longer
	for n := 0; decoded.Load() == 1; n++ {
		if n == 100 {
			t.Fatal("the object is never let go")
		}
		runtime.GC()
		if m := entry.Object().(*corev1.ConfigMap); m.Name != "x" || m.ResourceVersion != "2" {
			t.Fatalf("decoded again: %+v", m)
		}
	}
}

// An encoding is built once for all watchers, also for those that come after a
// garbage collection.
func TestEncodedOnce(t *testing.T) {
	s := newStore(t)
	c := running(t, cache.Config{Store: s})
	create(t, s, "a/x")
	entry, _ := fresh(t, c).Get("a/x")
	var built atomic.Int64
	build := func(obj kruntime.Object) ([]byte, error) {
		built.Add(1)
		return json.Marshal(obj)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if data, err := entry.Encoded("json", build); err != nil || !strings.Contains(string(data), `"resourceVersion":"2"`) {
				t.Errorf("encoded %s, %v", data, err)
			}
		})
	}
	all.Wait()
	for range 3 {
		runtime.GC()
		if _, err := entry.Encoded("json", build); err != nil {
			t.Fatal(err)
		}
	}
	if n := built.Load(); n != 1 {
		t.Errorf("built %d times", n)
	}
	if _, err := entry.Encoded("other", build); err != nil || built.Load() != 2 {
		t.Errorf("another form: built %d times, %v", built.Load(), err)
	}
	broken := errors.New("cannot")
	if _, err := entry.Encoded("broken", func(kruntime.Object) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("a build that fails: %v", err)
	}
}

// Bytes that cannot be decoded do not stop the others from being served.
func TestUndecodable(t *testing.T) {
	s := newStore(t)
	c := running(t, cache.Config{Store: s})
	if _, err := s.Create(t.Context(), prefix+"a/bad", []byte("{"), 0); err != nil {
		t.Fatal(err)
	}
	create(t, s, "a/good")
	snapshot := fresh(t, c)
	bad, _ := snapshot.Get("a/bad")
	if _, err := bad.Decode(); bad.Object() != nil || err == nil || !strings.Contains(err.Error(), prefix+"a/bad") {
		t.Errorf("undecodable entry: %v, %v", bad.Object(), err)
	}
	if good, _ := snapshot.Get("a/good"); good.Object() == nil {
		t.Error("the good one is gone")
	}
}

// A watcher that does not read is closed when the window has moved past it; it
// holds up nobody.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 16
		s := newStore(t)
		c := running(t, cache.Config{Store: s, Window: window})
		slow, err := c.Watch(cache.WatchOptions{Initial: true})
		if err != nil {
			t.Fatal(err)
		}
		quick, err := c.Watch(cache.WatchOptions{Initial: true})
		if err != nil {
			t.Fatal(err)
		}
		elsewhere, err := c.Watch(cache.WatchOptions{After: 1, Namespace: "b"})
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		for i := range 4 * window {
			create(t, s, fmt.Sprintf("a/%d", i))
			synctest.Wait()
			for len(slowless(quick)) > 0 {
				read++
				synctest.Wait()
			}
		}
		if read != 4*window+1 {
			t.Errorf("the quick one got %d batches", read)
		}
		if _, ok := <-slow.C(); ok {
			t.Error("the slow one got something although it was too late")
		}
		if err := slow.Err(); !errors.Is(err, cache.ErrBehind) {
			t.Errorf("the slow one ended with %v", err)
		}
		create(t, s, "b/x")
		if batch := <-elsewhere.C(); len(batch) != 1 || batch[0].Entry.Key() != "b/x" {
			t.Errorf("the one with nothing to read got %v", batch)
		}
		quick.Stop()
		elsewhere.Stop()
	})
}

// slowless reads one batch if there is one.
func slowless(w *cache.Watcher) []cache.Event {
	select {
	case batch := <-w.C():
		return batch
	default:
		return nil
	}
}

// gate is a store whose watches can be held up.
type gate struct {
	store.Store
	hold atomic.Pointer[chan struct{}]
}

type gateWatcher struct {
	store.Watcher
	gate *gate
}

func (g *gate) Watch(ctx context.Context, prefix string, after int64) (store.Watcher, error) {
	w, err := g.Store.Watch(ctx, prefix, after)
	return gateWatcher{w, g}, err
}

func (w gateWatcher) Next(ctx context.Context) ([]store.Event, error) {
	if hold := w.gate.hold.Load(); hold != nil {
		<-*hold
	}
	return w.Watcher.Next(ctx)
}

// When the store has compacted what the cache had not seen, the cache reads
// everything anew by itself, and says so to those who watch.
func TestReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		g := &gate{Store: s}
		c := running(t, cache.Config{Store: g})
		create(t, s, "a/kept")
		create(t, s, "a/gone")
		kept, _ := fresh(t, c).Get("a/kept")
		w, err := c.Watch(cache.WatchOptions{After: 3})
		if err != nil {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		g.hold.Store(&hold)
		create(t, s, "a/new1") // what Next, already under way, returns
		synctest.Wait()
		create(t, s, "a/new2")
		if _, err := s.Delete(t.Context(), prefix+"a/gone", 0); err != nil {
			t.Fatal(err)
		}
		last := create(t, s, "a/new3")
		if err := s.Compact(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		g.hold.Store(nil)
		close(hold)

		snapshot := fresh(t, c)
		if got := strings.Join(listed(snapshot, nil), ";"); !strings.HasPrefix(got, "4 at @7;") || strings.Contains(got, "gone") {
			t.Errorf("read anew: %s", got)
		}
		if again, _ := snapshot.Get("a/kept"); again != kept {
			t.Error("an entry that has not changed was replaced")
		}
		for range w.C() {
		}
		if err := w.Err(); !errors.Is(err, cache.ErrBehind) {
			t.Errorf("the watcher ended with %v", err)
		}
		old, err := c.Watch(cache.WatchOptions{After: last - 2})
		if err != nil {
			t.Fatal(err)
		}
		if batch, ok := <-old.C(); ok || !errors.Is(old.Err(), store.ErrCompacted) {
			t.Errorf("watch from before: %v, %v", batch, old.Err())
		}
		create(t, s, "a/after")
		if got := fresh(t, c); got.Len() != 5 {
			t.Errorf("it does not follow any more: %d entries", got.Len())
		}
	})
}

// lastKey is written after everything else, and matches everybody.
const lastKey = "z/last"

// Watchers that start at any time, with any selector, all end up with what a
// list shows.
func TestWatchersAgree(t *testing.T) {
	const writers, writes, watchers = 4, 300, 12
	s := newStore(t)
	c := running(t, cache.Config{Store: s})
	var writing, watching sync.WaitGroup
	for i := range watchers {
		match := func(e *cache.Entry) bool {
			return i%3 == 0 || e.Key() == lastKey || e.Labels()["app"] == fmt.Sprint(i%3)
		}
		watching.Go(func() {
			// Any moment will do.
			if err := c.WaitFor(t.Context(), rand.Int64N(writers*writes)); err != nil {
				t.Error(err)
				return
			}
			w, err := c.Watch(cache.WatchOptions{Initial: true, Match: match})
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Stop()
			got, want := follow(t, w), view(c.Snapshot(), match)
			if !maps.Equal(got, want) {
				t.Errorf("watcher %d saw %v\nwant %v", i, got, want)
			}
		})
	}
	for i := range writers {
		writing.Go(func() { scribble(t, s, i, writes) })
	}
	writing.Wait()
	create(t, s, lastKey)
	watching.Wait()
}

// scribble creates, relabels and deletes keys of its own at random.
func scribble(t *testing.T, s store.Store, writer, writes int) {
	for range writes {
		key := fmt.Sprintf("ns%d/%d", writer, rand.N(10))
		body := object(key, fmt.Sprintf("app=%d", rand.N(3)))
		entry, _, err := s.Get(t.Context(), prefix+key)
		switch {
		case err != nil:
			_, err = s.Create(t.Context(), prefix+key, body, 0)
		case rand.N(3) == 0:
			_, err = s.Delete(t.Context(), prefix+key, entry.Revision)
		default:
			_, err = s.Update(t.Context(), prefix+key, body, entry.Revision, 0)
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// follow folds events into what they add up to, until the last key.
func follow(t *testing.T, w *cache.Watcher) map[string]int64 {
	state := make(map[string]int64)
	for batch := range w.C() {
		for _, event := range batch {
			fold(t, state, event)
		}
		if _, end := state[lastKey]; end {
			return state
		}
	}
	t.Errorf("watch ended: %v", w.Err())
	return nil
}

func fold(t *testing.T, state map[string]int64, event cache.Event) {
	switch event.Type {
	case cache.Added:
		if _, had := state[event.Entry.Key()]; had {
			t.Errorf("added twice: %s", describe(event))
		}
		state[event.Entry.Key()] = event.Revision
	case cache.Modified:
		if _, had := state[event.Entry.Key()]; !had {
			t.Errorf("modified before added: %s", describe(event))
		}
		state[event.Entry.Key()] = event.Revision
	case cache.Deleted:
		if _, had := state[event.Entry.Key()]; !had {
			t.Errorf("deleted before added: %s", describe(event))
		}
		delete(state, event.Entry.Key())
	}
}

func view(s cache.Snapshot, match func(*cache.Entry) bool) map[string]int64 {
	state := make(map[string]int64)
	s.Ascend("", "", func(e *cache.Entry) bool {
		if match == nil || match(e) {
			state[e.Key()] = e.Revision()
		}
		return true
	})
	return state
}

// BenchmarkFanOut is one write seen by a thousand watchers, one of which wants it.
func BenchmarkFanOut(b *testing.B) {
	const watchers = 1000
	s := memory.New(memory.Config{})
	defer s.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	c := cache.New(cache.Config{Store: s, Prefix: prefix, Decode: decode})
	go c.Run(ctx)
	<-c.Ready()
	var wanted *cache.Watcher
	for i := range watchers {
		w, err := c.Watch(cache.WatchOptions{After: 1, Match: func(e *cache.Entry) bool { return e.Labels()["app"] == fmt.Sprint(i) }})
		if err != nil {
			b.Fatal(err)
		}
		wanted = w
	}
	body := object("a/x", fmt.Sprintf("app=%d", watchers-1))
	for n := 0; b.Loop(); n++ {
		if _, err := s.Create(ctx, fmt.Sprintf("%sa/%d", prefix, n), body, 0); err != nil {
			b.Fatal(err)
		}
		<-wanted.C()
	}
}
