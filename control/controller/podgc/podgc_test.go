package podgc

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Of the pods that have ended go first those that were evicted, then the oldest, then
// by name.
func TestLeastMissed(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	pod := func(name string, age int, phase corev1.PodPhase, reason string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(began.Add(-time.Duration(age) * time.Minute))}}
		p.Status.Phase, p.Status.Reason = phase, reason
		return p
	}
	pods := []*corev1.Pod{
		pod("young", 1, corev1.PodFailed, ""), pod("b", 5, corev1.PodSucceeded, ""), pod("a", 5, corev1.PodFailed, ""),
		pod("evicted", 0, corev1.PodFailed, "Evicted"), pod("evicted-before", 3, corev1.PodFailed, "Evicted"), pod("old", 9, corev1.PodSucceeded, "Evicted"),
	}
	slices.SortFunc(pods, leastMissed)
	var order []string
	for _, p := range pods {
		order = append(order, p.Name)
	}
	if got, want := strings.Join(order, " "), "evicted-before evicted old a b young"; got != want {
		t.Errorf("they go as %q, want %q", got, want)
	}
}

func TestJudge(t *testing.T) {
	dead := &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: corev1.TaintNodeOutOfService}}}}
	well := dead.DeepCopy()
	well.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	now := metav1.Now()
	for name, c := range map[string]struct {
		node  string
		going bool
		on    *corev1.Node
		want  verdict
	}{
		"waiting":                             {"", false, nil, ""},
		"deleted before it had a node":        {"", true, nil, unscheduled},
		"on a node that nobody knows":         {"n", false, nil, orphaned},
		"on a node that is dead, not deleted": {"n", false, dead, ""},
		"on a node that is dead, deleted":     {"n", true, dead, abandoned},
		"on a node that is ready, deleted":    {"n", true, well, ""},
		"on a node without the taint":         {"n", true, &corev1.Node{}, ""},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{NodeName: c.node}}
		if c.going {
			p.DeletionTimestamp = &now
		}
		if got := judge(p, c.on, c.on != nil); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
