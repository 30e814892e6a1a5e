package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/reconcile"
)

// The first of the changes since the last question counts, pod by pod.
func TestTriggers(t *testing.T) {
	zero := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	pod := func(name string, second int) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, LastTransitionTime: metav1.NewTime(zero.Add(time.Duration(second) * time.Second))}}
		return p
	}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(zero)}}
	unready := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "c"}}
	var triggers Triggers
	key := reconcile.Key{Name: "s"}
	for _, c := range []struct {
		why, want string
		pods      []*corev1.Pod
	}{
		{"it begins when it was made", "2030-01-01T12:00:00Z", []*corev1.Pod{pod("a", 5)}},
		{"nothing has happened", "", []*corev1.Pod{pod("a", 5)}},
		{"the earlier of two", "2030-01-01T12:00:07Z", []*corev1.Pod{pod("a", 9), pod("b", 7), unready}},
		{"one that is older than another's last", "2030-01-01T12:00:08Z", []*corev1.Pod{pod("a", 9), pod("b", 8)}},
		{"a pod goes", "", []*corev1.Pod{pod("a", 9)}},
		{"one of its name comes", "2030-01-01T12:00:08Z", []*corev1.Pod{pod("a", 9), pod("b", 8)}},
	} {
		if got := triggers.Next(key, svc, c.pods); got != c.want {
			t.Errorf("%s: %q, want %q", c.why, got, c.want)
		}
	}
	triggers.Lost(key)
	for _, want := range []string{"2030-01-01T12:00:08Z", ""} {
		if got := triggers.Next(key, svc, []*corev1.Pod{pod("a", 9), pod("b", 8)}); got != want {
			t.Errorf("after an answer that came to nothing: %q, want %q", got, want)
		}
	}
	triggers.Forget(key)
	if got := triggers.Next(key, svc, nil); got != "2030-01-01T12:00:00Z" {
		t.Errorf("made anew: %q", got)
	}
}
