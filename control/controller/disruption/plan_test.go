package disruption

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// pods reads "+ - x" as ready, unready and going; "+90" is a ready pod that was
// evicted 90 seconds ago.
func pods(text string, b *policyv1.PodDisruptionBudget, now time.Time) []*corev1.Pod {
	var all []*corev1.Pod
	for i, word := range strings.Fields(text) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}}
		if word[0] == '+' {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		if word[0] == 'x' {
			pod.DeletionTimestamp = &metav1.Time{Time: now}
		}
		var ago int
		if n, _ := fmt.Sscan(word[1:], &ago); n == 1 {
			if b.Status.DisruptedPods == nil {
				b.Status.DisruptedPods = map[string]metav1.Time{}
			}
			b.Status.DisruptedPods[pod.Name] = metav1.NewTime(now.Add(-time.Duration(ago) * time.Second))
		}
		all = append(all, pod)
	}
	return all
}

func TestJudge(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name          string
		min, max      string
		pods          string
		expected      int32
		want          string
		again         time.Duration
		wantSurvivors int
	}{
		{"as many as there are", "2", "", "+ + +", 3, "1 allowed: 3/2 of 3 SufficientPods", 0, 0},
		{"one too few", "2", "", "+ - x", 3, "0 allowed: 1/2 of 3 InsufficientPods", 0, 0},
		{"half of five, rounded up", "50%", "", "+ + + +", 5, "1 allowed: 4/3 of 5 SufficientPods", 0, 0},
		{"a third may go, rounded up", "", "33%", "+ + + +", 4, "2 allowed: 4/2 of 4 SufficientPods", 0, 0},
		{"more may go than there are", "", "10", "+ +", 2, "2 allowed: 2/0 of 2 SufficientPods", 0, 0},
		{"nothing expected, nothing allowed", "", "1", "", 0, "0 allowed: 0/0 of 0 InsufficientPods", 0, 0},
		{"asks for nothing", "", "", "+ +", 2, "0 allowed: 2/0 of 0 InsufficientPods", 0, 0},
		{"an evicted pod is as good as gone", "1", "", "+ +90", 2, "0 allowed: 1/1 of 2 InsufficientPods", 30 * time.Second, 0},
		{"unless it stays", "1", "", "+ +121", 2, "1 allowed: 2/1 of 2 SufficientPods", 0, 1},
		{"one that goes is no longer listed", "1", "", "+ x90", 2, "0 allowed: 1/1 of 2 InsufficientPods", 0, 0},
		{"the soonest counts", "0", "", "+30 +100", 2, "0 allowed: 0/0 of 2 InsufficientPods", 20 * time.Second, 0},
	} {
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: 7}}
		if c.min != "" {
			v := intstr.Parse(c.min)
			b.Spec.MinAvailable = &v
		}
		if c.max != "" {
			v := intstr.Parse(c.max)
			b.Spec.MaxUnavailable = &v
		}
		v, err := judge(b, pods(c.pods, b, now), c.expected, now)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		s := v.status
		got := fmt.Sprintf("%d allowed: %d/%d of %d %s", s.DisruptionsAllowed, s.CurrentHealthy, s.DesiredHealthy, s.ExpectedPods, s.Conditions[0].Reason)
		if got != c.want || v.again != c.again || len(v.survivors) != c.wantSurvivors || s.ObservedGeneration != 7 {
			t.Errorf("%s:\n got %s, again in %v, %d survivors\nwant %s, again in %v, %d", c.name, got, v.again, len(v.survivors), c.want, c.again, c.wantSurvivors)
		}
	}
}

// What cannot be told allows nothing, and says why.
func TestFailed(t *testing.T) {
	b := &policyv1.PodDisruptionBudget{Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 3, CurrentHealthy: 5}}
	s := failed(b, fmt.Errorf("found no controllers for pod %q", "p"), time.Now())
	if c := s.Conditions[0]; s.DisruptionsAllowed != 0 || s.CurrentHealthy != 5 || c.Reason != policyv1.SyncFailedReason || c.Message != `found no controllers for pod "p"` {
		t.Errorf("%+v", s)
	}
	if same(&b.Status, &s) || !same(&s, s.DeepCopy()) {
		t.Error("equality is wrong")
	}
}
