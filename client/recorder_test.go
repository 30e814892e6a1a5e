package client_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// What can't be told is said in one line of the log.
func TestLossIsSaid(t *testing.T) {
	var log strings.Builder
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	synctest.Test(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		m.Before = func(string, target.Target) error { time.Sleep(time.Second); return nil }
		r := client.NewRecorder(m, "tester", "")
		for i := range 1500 {
			r.Event(podNamed(fmt.Sprint(i)), corev1.EventTypeNormal, "Talk", "hello")
		}
		time.Sleep(time.Hour)
	})
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "component=tester") || !strings.Contains(got, "lost=") {
		t.Errorf("log:\n%s", got)
	}
}

// A server that does not answer costs events, never time.
func TestRecorderNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
		time.Sleep(48 * time.Hour) // until the sender has given up on all
	})
}

// A nil Recorder is a recorder for who does not care.
func TestNilRecorder(t *testing.T) {
	var r *client.Recorder
	r.Event(podNamed("a"), corev1.EventTypeNormal, "Talk", "to nobody")
	r.Eventf(podNamed("a"), corev1.EventTypeNormal, "Talk", "to %s", "nobody")
}
