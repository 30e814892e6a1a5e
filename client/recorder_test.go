package client_test

import (
	"errors"
	"fmt"
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

// An object that is talked about too much is not heard; another one is.
func TestTalkIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := clienttest.NewMemory()
		r := client.NewRecorder(m, "tester", "")
		for i := range 100 {
			r.Event(podNamed("loud"), corev1.EventTypeNormal, "Talk", fmt.Sprint(i))
		}
		r.Event(podNamed("quiet"), corev1.EventTypeNormal, "Talk", "hello")
		if n := len(recorded(t, m)); n != 26 {
			t.Errorf("%d events, want 25 and one", n)
		}
		time.Sleep(10 * time.Minute)
		r.Event(podNamed("loud"), corev1.EventTypeNormal, "Talk", "again")
		if n := len(recorded(t, m)); n != 27 {
			t.Errorf("%d events after a while, want 27", n)
		}
	})
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
