package seeded

import (
	"context"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/control/store/memory"
	"github.com/sampan-dev/sampan/internal/target"
)

// slowStore is the store in memory, in which a write can be kept waiting at the last
// moment: the API server has read and decided, and another one's write comes between.
type slowStore struct {
	*memory.Store

	mu   sync.Mutex
	path string        // whose next write waits, "" for nobody's
	free chan struct{} // closed when it may go on
}

// hold keeps the next write of an object waiting, until release.
func (s *slowStore) hold(t target.Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.path, s.free = place(t), make(chan struct{})
}

func (s *slowStore) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.path = ""
	close(s.free)
}

// place is how the keys of an object end, whatever group they are of.
func place(t target.Target) string {
	if t.Namespace == "" {
		return "/" + t.Resource.Resource + "/" + t.Name
	}
	return "/" + t.Resource.Resource + "/" + t.Namespace + "/" + t.Name
}

func (s *slowStore) wait(ctx context.Context, key string) {
	s.mu.Lock()
	if s.path == "" || !strings.HasSuffix(key, s.path) {
		s.mu.Unlock()
		return
	}
	s.path = "" // one is enough
	free := s.free
	s.mu.Unlock()
	select {
	case <-free:
	case <-ctx.Done():
	}
}

// Update implements store.Store.
func (s *slowStore) Update(ctx context.Context, key string, value []byte, expected int64, ttl time.Duration) (int64, error) {
	s.wait(ctx, key)
	return s.Store.Update(ctx, key, value, expected, ttl)
}

// Delete implements store.Store.
func (s *slowStore) Delete(ctx context.Context, key string, expected int64) (int64, error) {
	s.wait(ctx, key)
	return s.Store.Delete(ctx, key, expected)
}

// rival is another one that waits to write the same object at this moment, taken out of
// those that wait; nil when there is none, or when the seed does not let the two meet.
func (g *gate) rival(t *ticket) *ticket {
	if t.deed.act != writing || t.deed.verb == "create" || t.deed.at.Name == "" || t.lot[1]%2 == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var met *ticket
	at := 0
	now := time.Now()
	for i, o := range g.waiting {
		same := o.deed.act == writing && o.deed.verb != "create" && o.deed.at.Name == t.deed.at.Name &&
			o.deed.at.Namespace == t.deed.at.Namespace && o.deed.at.Resource.GroupResource() == t.deed.at.Resource.GroupResource()
		if same && !g.silent[o.who].After(now) && (met == nil || o.before(met)) {
			met, at = o, i
		}
	}
	if met != nil {
		g.waiting = append(g.waiting[:at], g.waiting[at+1:]...)
	}
	return met
}

// meet lets two write one object at once: what the first has decided on is written when
// the second has been written.
func (w *world) meet(first, second *ticket) {
	w.objects.hold(first.deed.at)
	w.pass(first, proceed)
	synctest.Wait()
	w.note("meanwhile")
	w.pass(second, w.trouble.judge(second))
	synctest.Wait()
	w.objects.release()
}

// pass lets one that waits go on.
func (w *world) pass(t *ticket, v verdict) {
	w.count(t, v)
	w.acting = t.who
	w.note("%s%s", t, verdictNames[v])
	t.pass <- v
}
