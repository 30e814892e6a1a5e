package seeded

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

const (
	book = "book" // a config map that several write into
	// together is a key of it that all of them count up, each of his own accord.
	together = "together"
	// scribes is how many there are, and writeEvery how often all of them write, at the
	// same moment.
	scribes    = 2
	writeEvery = 9 * time.Second
)

// tallies is what the scribes were told.
type tallies struct {
	mu sync.Mutex
	// told is the greatest number under a scribe's own key that he was told is written;
	// counted is how often somebody was told that he has counted up together.
	told    map[string]int
	tried   map[string]int // what he has begun to write
	counted int
	// unsure is how often somebody was not told whether he has.
	unsure int
}

// scribesLife lets several write into one object at the same moments: each of them under
// a key of his own with patches, which the API server merges into what it has read,
// and all of them under one key with updates, which are to fail if somebody was faster.
func (w *world) scribesLife() {
	w.tallies.told, w.tallies.tried = map[string]int{}, map[string]int{}
	w.ask("create config map "+book, func() error {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "free", Name: book}, Data: map[string]string{together: "0"}}
		_, err := client.ConfigMaps.Create(w.t.Context(), w.admin, m)
		return err
	})
	for i := range scribes {
		w.startScribe(fmt.Sprintf("scribe %d", i))
	}
}

func (w *world) startScribe(who string) {
	l := w.begins(who, func(ctx context.Context, l *life) error {
		t := w.connect(l, "", identity.Identity{Name: "scribe", Groups: []string{identity.Masters, identity.Authenticated}})
		ticks := time.NewTicker(writeEvery)
		defer ticks.Stop()
		key := "of-" + who[len(who)-1:]
		for !w.over {
			select {
			case <-ticks.C:
			case <-ctx.Done():
				return ctx.Err()
			}
			n := w.tallies.next(key)
			if n%3 == 0 {
				w.countUp(ctx, t)
			}
			patch, err := json.Marshal(map[string]any{"data": map[string]string{key: strconv.Itoa(n)}})
			if err != nil {
				return err
			}
			at := target.Of(client.ConfigMaps.GroupVersionResource, "free").Object(book)
			if _, err := t.Patch(ctx, at, types.MergePatchType, patch, metav1.PatchOptions{}); err == nil {
				w.tallies.write(key, n)
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})
	w.respawn(l, func() { w.startScribe(who) })
}

// next is what a scribe writes next.
func (s *tallies) next(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried[key]++
	return s.tried[key]
}

func (s *tallies) write(key string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told[key] = max(s.told[key], n)
}

// countUp reads what all have counted, and writes one more if nobody else has meanwhile.
func (w *world) countUp(ctx context.Context, t client.Transport) {
	m, err := client.ConfigMaps.Get(ctx, t, "free", book)
	if err != nil {
		return
	}
	m = m.DeepCopy()
	n, err := strconv.Atoi(m.Data[together])
	if err != nil {
		w.t.Errorf("config map %s counts %q", book, m.Data[together])
		return
	}
	m.Data[together] = strconv.Itoa(n + 1)
	_, err = client.ConfigMaps.Update(ctx, t, m)
	w.tallies.mu.Lock()
	defer w.tallies.mu.Unlock()
	switch {
	case err == nil:
		w.tallies.counted++
	case !apierrors.IsConflict(err):
		w.tallies.unsure++
	}
}

// scribbled: what a scribe was told is written stands there, or newer.
func (o *oracle) scribbled(m *corev1.ConfigMap) {
	if m.Name != book {
		return
	}
	for key, text := range m.Data {
		n, err := strconv.Atoi(text)
		if err != nil || n < o.written[key] {
			o.w.fail("config map %s: %s went from %d to %q", book, key, o.written[key], text)
		}
		o.written[key] = n
	}
}

// finalScribes: everything that was written is there, and nothing was counted twice.
func (o *oracle) finalScribes() {
	s := &o.w.tallies
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, n := range s.told {
		if o.written[key] < n {
			o.w.fail("config map %s: %s is %d, its writer was told that %d is written", book, key, o.written[key], n)
		}
	}
	if n := o.written[together]; n < s.counted || n > s.counted+s.unsure {
		o.w.fail("config map %s: all have counted up %d times, and perhaps %d times more; it says %d", book, s.counted, s.unsure, n)
	}
}
