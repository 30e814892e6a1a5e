package client_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/internal/target"
)

func podNamed(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)}}
}

func recorded(t *testing.T, m *clienttest.Memory) map[string]*corev1.Event {
	t.Helper()
	synctest.Wait()
	events, _, err := client.Events.List(t.Context(), m, "", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*corev1.Event{}
	for _, e := range events {
		all[fmt.Sprintf("%s/%s %s: %s", e.Namespace, e.InvolvedObject.Name, e.Reason, e.Message)] = e
	}
	return all
}

// The same thing again is a count, not another event.
func TestRepetitionIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		r := client.NewRecorder(m, "tester", "n1")
		for range 3 {
			r.Event(podNamed("a"), corev1.EventTypeWarning, "BackOff", "once more")
			time.Sleep(time.Minute)
		}
		r.Event(podNamed("a"), corev1.EventTypeWarning, "BackOff", "otherwise")
		r.Event(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, corev1.EventTypeNormal, "Ready", "at last")
		all := recorded(t, m)
		e := all["shop/a BackOff: once more"]
		if len(all) != 3 || e == nil || all["shop/a BackOff: otherwise"] == nil || all["default/n1 Ready: at last"] == nil {
			t.Fatalf("events %v", all)
		}
		if e.Count != 3 || e.LastTimestamp.Sub(e.FirstTimestamp.Time) != 2*time.Minute {
			t.Errorf("count %d from %v to %v, want 3 over 2m", e.Count, e.FirstTimestamp, e.LastTimestamp)
		}
		if e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.APIVersion != "v1" || e.Source.Component != "tester" || e.Source.Host != "n1" {
			t.Errorf("about %v from %v", e.InvolvedObject, e.Source)
		}
	})
}

// An object that is talked about too much is not heard; another one is. What was
// not told is counted by what is told next.
func TestTalkIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		r := client.NewRecorder(m, "tester", "")
		for i := range 100 {
			r.Event(podNamed("loud"), corev1.EventTypeNormal, fmt.Sprintf("Reason%d", i%50), "talk")
		}
		r.Event(podNamed("quiet"), corev1.EventTypeNormal, "Talk", "hello")
		if n := len(recorded(t, m)); n != 26 {
			t.Errorf("%d events, want 25 and one", n)
		}
		time.Sleep(bucketFill)
		r.Event(podNamed("loud"), corev1.EventTypeNormal, "Reason49", "talk")
		all := recorded(t, m)
		if e := all["shop/loud Reason49: talk"]; len(all) != 27 || e == nil || e.Count != 3 {
			t.Errorf("%d events after a while, want 27, and a count of 3: %v", len(all), e)
		}
	})
}

// bucketFill is how long it takes until one more event about an object is told.
const bucketFill = 5 * time.Minute

// One reason with ever new messages becomes one event: the first nine are told one by
// one, the newest stands for the rest. After ten minutes of silence it begins anew.
func TestSimilarEventsAreCombined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		r := client.NewRecorder(m, "tester", "n1")
		for i := range 12 {
			r.Event(podNamed("a"), corev1.EventTypeWarning, "Failed", fmt.Sprintf("attempt %d", i))
			synctest.Wait()
			time.Sleep(time.Second)
		}
		all := recorded(t, m)
		e := all["shop/a Failed: (combined from similar events): attempt 11"]
		if len(all) != 10 || e == nil || e.Count != 3 || e.LastTimestamp.Sub(e.FirstTimestamp.Time) != 2*time.Second {
			t.Errorf("%d events, want nine and one for the other three: %v", len(all), e)
		}
		r.Event(podNamed("a"), corev1.EventTypeWarning, "BackOff", "another reason")
		r.Event(podNamed("b"), corev1.EventTypeWarning, "Failed", "another pod")
		time.Sleep(11 * time.Minute)
		r.Event(podNamed("a"), corev1.EventTypeWarning, "Failed", "attempt 12")
		all = recorded(t, m)
		for _, want := range []string{"shop/a BackOff: another reason", "shop/b Failed: another pod", "shop/a Failed: attempt 12"} {
			if all[want] == nil {
				t.Errorf("no event %q", want)
			}
		}
	})
}

// What happens while the server is slow is told in as few events as it is series; an
// event that the server has let go comes back with its count.
func TestCountsAreToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		writes := 0
		m.Before = func(verb string, _ target.Target) error {
			if verb == "create" || verb == "patch" {
				writes++
				time.Sleep(time.Second)
			}
			return nil
		}
		r := client.NewRecorder(m, "tester", "")
		for range 2000 {
			r.Event(podNamed("a"), corev1.EventTypeNormal, "Pulled", "again")
		}
		time.Sleep(10 * time.Second)
		e := recorded(t, m)["shop/a Pulled: again"]
		if e == nil || writes > 2 {
			t.Fatalf("%d writes for one event: %v", writes, e)
		}
		m.Before = nil
		if err := client.Events.Delete(t.Context(), m, e.Namespace, e.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(bucketFill)
		r.Event(podNamed("a"), corev1.EventTypeNormal, "Pulled", "again")
		if e := recorded(t, m)["shop/a Pulled: again"]; e == nil || e.Count != 2001 {
			t.Errorf("after the server forgot: %v, want a count of 2001", e)
		}
	})
}

// logged runs f in a bubble and returns what it logs.
func logged(t *testing.T, f func(*testing.T)) string {
	var log strings.Builder
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	synctest.Test(t, f)
	return log.String()
}

// What can't be told is said in one line of the log.
func TestLossIsSaid(t *testing.T) {
	got := logged(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		m.Before = func(string, target.Target) error { time.Sleep(time.Second); return nil }
		r := client.NewRecorder(m, "tester", "")
		for i := range 40000 {
			r.Event(podNamed(fmt.Sprint(i)), corev1.EventTypeNormal, "Talk", "hello")
		}
		time.Sleep(12 * time.Hour)
	})
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, "component=tester") || !strings.Contains(got, "lost=7231\n") && !strings.Contains(got, "lost=7232\n") {
		t.Errorf("log:\n%s", got)
	}
}

// A storm is told in the end, by few at a time, and each object's story in order.
func TestStorm(t *testing.T) {
	got := logged(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		at, most := atomic.Int32{}, atomic.Int32{}
		m.Before = func(verb string, _ target.Target) error {
			if verb == "list" {
				return nil
			}
			if n := at.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(2 * time.Millisecond)
			at.Add(-1)
			return nil
		}
		r := client.NewRecorder(m, "tester", "")
		const pods, times = 2000, 3
		for range times {
			for i := range pods {
				r.Event(podNamed(fmt.Sprint(i)), corev1.EventTypeNormal, "Talk", "hello")
				time.Sleep(time.Millisecond / 4)
			}
		}
		time.Sleep(time.Minute)
		all := recorded(t, m)
		for i := range pods {
			if e := all[fmt.Sprintf("shop/%d Talk: hello", i)]; e == nil || e.Count != times {
				t.Fatalf("of pod %d: %v", i, e)
			}
		}
		if most.Load() < 2 || most.Load() > 4 {
			t.Errorf("%d senders at once", most.Load())
		}
	})
	if got != "" {
		t.Errorf("log:\n%s", got)
	}
}

// troubled is a server whose writes fail, or do not while their answers get lost.
type troubled struct {
	*clienttest.Memory
	err   error
	after bool
	calls int
}

func (m *troubled) Create(ctx context.Context, at target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	m.calls++
	if m.err != nil && !m.after {
		return nil, m.err
	}
	made, err := m.Memory.Create(ctx, at, obj, opts)
	return made, cmp.Or(m.err, err)
}

func (m *troubled) Patch(ctx context.Context, at target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	m.calls++
	if m.err != nil && !m.after {
		return nil, m.err
	}
	made, err := m.Memory.Patch(ctx, at, pt, data, opts)
	return made, cmp.Or(m.err, err)
}

// While the server has trouble events wait, and are told when it is well again; what
// it has an opinion about is not said twice.
func TestTroubleIsWaitedFor(t *testing.T) {
	busy := apierrors.NewTooManyRequests("later", 1)
	for _, c := range []struct {
		name  string
		err   error
		after bool // the server did it all the same
		lasts time.Duration
		want  int32
	}{
		{"no answer", errors.New("down"), false, time.Minute, 2},
		{"the answer is lost", errors.New("down"), true, time.Minute, 2},
		{"too busy", busy, false, time.Minute, 2},
		{"down for too long", errors.New("down"), false, 3 * time.Minute, 0},
		{"refused", apierrors.NewForbidden(client.Events.GroupResource(), "e", errors.New("no")), false, time.Second, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_ = logged(t, func(t *testing.T) {
				m := &troubled{Memory: clienttest.NewMemory(), err: c.err, after: c.after}
				r := client.NewRecorder(m, "tester", "")
				for range 2 {
					r.Event(podNamed("a"), corev1.EventTypeNormal, "Talk", "hello")
					synctest.Wait()
				}
				time.Sleep(c.lasts)
				m.err = nil
				time.Sleep(time.Minute)
				all := recorded(t, m.Memory)
				if e := all["shop/a Talk: hello"]; len(all) > 1 || (e == nil) != (c.want == 0) || e != nil && e.Count != c.want {
					t.Errorf("events %v, want a count of %d", all, c.want)
				}
				if m.calls > 30 {
					t.Errorf("asked %d times", m.calls)
				}
				r.Event(podNamed("b"), corev1.EventTypeNormal, "Talk", "again")
				if recorded(t, m.Memory)["shop/b Talk: again"] == nil {
					t.Error("nothing is told afterwards")
				}
			})
		})
	}
}

// A server that does not answer costs events, never time.
func TestRecorderNeverWaits(t *testing.T) {
	_ = logged(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		m.Before = func(string, target.Target) error { time.Sleep(time.Minute); return errors.New("down") }
		r := client.NewRecorder(m, "tester", "")
		start := time.Now()
		for i := range 5000 {
			r.Event(podNamed(fmt.Sprint(i)), corev1.EventTypeNormal, "Talk", strings.Repeat("é", 2000))
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %v", waited)
		}
		time.Sleep(time.Hour) // until the sender has given up on all
	})
}

// An object's name may be none for an event: it is told all the same.
func TestNameOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		r := client.NewRecorder(m, "tester", "")
		for name, keep := range map[string]bool{"web-0": true, "system:node": false, strings.Repeat("a", 250): false} {
			r.Event(podNamed(name), corev1.EventTypeNormal, "Talk", "hello")
			e := recorded(t, m)["shop/"+name+" Talk: hello"]
			if e == nil || strings.HasPrefix(e.Name, name+".") != keep || len(validation.NameIsDNSSubdomain(e.Name, false)) > 0 {
				t.Errorf("of %q: %v", name, e)
			}
		}
	})
}

// What is heard of often is remembered, however much else happens.
func TestMemoryIsOfTheRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		r := client.NewRecorder(m, "tester", "")
		r.Event(podNamed("once"), corev1.EventTypeNormal, "Talk", "hello")
		for i := range 6000 {
			if i%1000 == 0 {
				r.Event(podNamed("often"), corev1.EventTypeNormal, "Talk", "hello")
				synctest.Wait()
			}
			r.Event(podNamed(fmt.Sprint(i)), corev1.EventTypeNormal, "Talk", "hello")
		}
		synctest.Wait()
		r.Event(podNamed("once"), corev1.EventTypeNormal, "Talk", "hello")
		synctest.Wait()
		events, _, err := client.Events.List(t.Context(), m, "", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		counts := map[string][]int32{}
		for _, e := range events {
			counts[e.InvolvedObject.Name] = append(counts[e.InvolvedObject.Name], e.Count)
		}
		if !slices.Equal(counts["often"], []int32{6}) || !slices.Equal(counts["once"], []int32{1, 1}) {
			t.Errorf("counts %v and %v", counts["often"], counts["once"])
		}
	})
}

// A nil Recorder is a recorder for who does not care.
func TestNilRecorder(t *testing.T) {
	var r *client.Recorder
	r.Event(podNamed("a"), corev1.EventTypeNormal, "Talk", "to nobody")
	r.Eventf(podNamed("a"), corev1.EventTypeNormal, "Talk", "to %s", "nobody")
}
