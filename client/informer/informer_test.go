package informer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/internal/target"
)

func config(namespace, name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"v": value}},
		Data:       map[string]string{"v": value},
	}
}

// follower runs an informer of config maps and writes down its events.
type follower struct {
	*informer.Informer[*corev1.ConfigMap]
	mu  sync.Mutex
	log []string
}

func follow(t *testing.T, m client.Transport, opts informer.Options) *follower {
	opts.Log = slog.New(slog.DiscardHandler)
	f := &follower{Informer: informer.New(m, client.ConfigMaps, opts)}
	f.AddIndex("value", func(c *corev1.ConfigMap) []string { return []string{c.Data["v"]} })
	f.Subscribe(func(e informer.Event[*corev1.ConfigMap]) {
		show := func(c *corev1.ConfigMap) string {
			if c == nil {
				return "-"
			}
			return c.Name + "=" + c.Data["v"]
		}
		f.mu.Lock()
		f.log = append(f.log, show(e.Old)+" > "+show(e.New))
		f.mu.Unlock()
	})
	go func() { _ = f.Run(t.Context()) }()
	return f
}

func (f *follower) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.log, want) {
		t.Errorf("events\n%s\nwant\n%s", strings.Join(f.log, "\n"), strings.Join(want, "\n"))
	}
	f.log = nil
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func TestMirrorFollowsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, m := t.Context(), clienttest.NewMemory()
		must(client.ConfigMaps.Create(ctx, m, config("n", "a", "1")))
		f := follow(t, m, informer.Options{})
		f.expect(t, "- > a=1")
		<-f.Synced()
		must(client.ConfigMaps.Create(ctx, m, config("n", "b", "1")))
		changed := config("n", "a", "2")
		must(client.ConfigMaps.Update(ctx, m, changed))
		f.expect(t, "- > b=1", "a=1 > a=2")
		if got := f.ByIndex("value", "1"); len(got) != 1 || got[0].Name != "b" {
			t.Errorf("index 1 has %v, want b", got)
		}
		if err := client.ConfigMaps.Delete(ctx, m, "n", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		f.expect(t, "a=2 > -")
		if _, ok := f.Get("n", "a"); ok || len(f.List()) != 1 || len(f.ByIndex("value", "2")) != 0 {
			t.Error("deleted object is still there")
		}
	})
}

func TestSelectionAddsAndRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, m := t.Context(), clienttest.NewMemory()
		f := follow(t, m, informer.Options{Namespace: "n", LabelSelector: "v=1"})
		<-f.Synced()
		must(client.ConfigMaps.Create(ctx, m, config("n", "a", "1")))
		must(client.ConfigMaps.Create(ctx, m, config("other", "a", "1")))
		must(client.ConfigMaps.Update(ctx, m, config("n", "a", "2")))
		f.expect(t, "- > a=1", "a=2 > -")
	})
}

// While the server is away things change; afterwards the watch resumes where it
// ended, or, when that is compacted, one list makes up for the gap.
func TestGap(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		t.Run(fmt.Sprintf("compacted=%v", compacted), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, m := t.Context(), clienttest.NewMemory()
				var down bool
				var full int // watches that were answered
				var mu sync.Mutex
				m.Before = func(verb string, _ target.Target) error {
					mu.Lock()
					defer mu.Unlock()
					if verb == "watch" && !down {
						full++
					}
					if down && (verb == "watch" || verb == "list") {
						return errors.New("connection refused")
					}
					return nil
				}
				set := func(v bool) { mu.Lock(); down = v; mu.Unlock() }
				must(client.ConfigMaps.Create(ctx, m, config("n", "a", "1")))
				must(client.ConfigMaps.Create(ctx, m, config("n", "b", "1")))
				f := follow(t, m, informer.Options{})
				f.expect(t, "- > a=1", "- > b=1")
				set(true)
				m.HangUp()
				synctest.Wait()
				must(client.ConfigMaps.Update(ctx, m, config("n", "a", "2")))
				must(client.ConfigMaps.Update(ctx, m, config("n", "a", "3")))
				if err := client.ConfigMaps.Delete(ctx, m, "n", "b", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				if compacted {
					m.Compact()
				}
				time.Sleep(time.Minute)
				f.expect(t)
				set(false)
				time.Sleep(time.Minute)
				if compacted {
					f.expect(t, "b=1 > -", "a=1 > a=3")
				} else {
					f.expect(t, "a=1 > a=2", "a=2 > a=3", "b=1 > -")
				}
				// The first watch, the one that resumes, and if that cannot, one more.
				if want := map[bool]int{false: 2, true: 3}[compacted]; full != want {
					t.Errorf("%d watches, want %d", full, want)
				}
			})
		})
	}
}

// A server from before streaming lists is listed.
func TestPlainList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, m := t.Context(), clienttest.NewMemory()
		must(client.ConfigMaps.Create(ctx, m, config("n", "a", "1")))
		f := follow(t, &old{m}, informer.Options{})
		time.Sleep(time.Second)
		f.expect(t, "- > a=1")
		must(client.ConfigMaps.Create(ctx, m, config("n", "b", "1")))
		f.expect(t, "- > b=1")
	})
}

// old refuses to stream the initial state, as Kubernetes did before 1.34.
type old struct{ client.Transport }

func (o *old) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	if opts.SendInitialEvents != nil {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "ListOptions"}, "", nil)
	}
	return o.Transport.Watch(ctx, t, opts)
}

// An object that was deleted and made anew during a gap is another object.
func TestGapHidesReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, m := t.Context(), clienttest.NewMemory()
		var down atomic.Bool
		m.Before = func(verb string, _ target.Target) error {
			if down.Load() && (verb == "list" || verb == "watch") {
				return errors.New("down")
			}
			return nil
		}
		must(client.ConfigMaps.Create(ctx, m, config("n", "a", "1")))
		f := follow(t, m, informer.Options{})
		f.expect(t, "- > a=1")
		down.Store(true)
		m.HangUp()
		synctest.Wait()
		if err := client.ConfigMaps.Delete(ctx, m, "n", "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		must(client.ConfigMaps.Create(ctx, m, config("n", "a", "2")))
		m.Compact()
		down.Store(false)
		time.Sleep(time.Minute)
		f.expect(t, "a=1 > -", "- > a=2")
	})
}
