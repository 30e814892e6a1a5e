package horizontalpodautoscaler

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Unix(100000, 0)

// look reads pods, each of which requests a core: "R500" is ready and uses 500
// thousandths, "R" has no metrics, "U" is unready and has never been ready, "N"
// is ready for a moment only, "P" is pending, "X" goes, "F" has failed.
func look(text string, spec int32) (*sight, use) {
	s, u := &sight{now: now, spec: spec, status: spec, tolerance: tolerance{usualTolerance, usualTolerance}}, use{}
	for i, word := range strings.Fields(text) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}}
		pod.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}
		start := metav1.NewTime(now.Add(-time.Hour))
		ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(start.Add(time.Minute))}
		pod.Status.Phase = corev1.PodRunning
		switch word[0] {
		case 'U':
			ready.Status, ready.LastTransitionTime = corev1.ConditionFalse, start
		case 'N':
			start = metav1.NewTime(now.Add(-time.Minute))
			ready.LastTransitionTime = metav1.NewTime(now.Add(-5 * time.Second))
		case 'P':
			pod.Status.Phase = corev1.PodPending
		case 'F':
			pod.Status.Phase = corev1.PodFailed
		case 'X':
			pod.DeletionTimestamp = &metav1.Time{Time: now}
		}
		pod.Status.StartTime, pod.Status.Conditions = &start, []corev1.PodCondition{ready}
		var value int64
		if n, _ := fmt.Sscan(word[1:], &value); n == 1 {
			u[pod.Name] = measured{value: value, at: now, window: 15 * time.Second}
		}
		s.pods = append(s.pods, pod)
	}
	return s, u
}

func TestUtilization(t *testing.T) {
	for _, c := range []struct {
		name, pods string
		spec       int32
		want       string
	}{
		{"twice the target", "R1000 R1000 R1000", 3, "6 at 100%"},
		{"half the target", "R250 R250 R250 R250", 4, "2 at 25%"},
		{"near enough", "R540 R520", 2, "2 at 53%"},
		{"a failed and a going one do not count", "R1000 F9000 X9000", 1, "2 at 100%"},
		{"a missing one is idle on the way up", "R1000 R", 2, "2 at 100%"},
		{"and busy on the way down", "R100 R100 R100 R", 4, "3 at 10%"},
		{"which may stop it", "R200 R", 2, "2 at 20%"},
		{"a pending one is idle on the way up", "R1000 R1000 P", 3, "4 at 100%"},
		{"one that has never been ready, too", "R1000 R1000 U1000", 3, "4 at 100%"},
		{"one that was not ready for a window, too", "R1000 R1000 N1000", 3, "4 at 100%"},
		{"unready ones do not count on the way down", "R200 R200 U900", 3, "1 at 20%"},
		{"nothing but unready", "P U100", 2, errNoMetrics.Error()},
		{"no pods", "", 1, errNoPods.Error()},
	} {
		s, u := look(c.pods, c.spec)
		half := int32(50)
		n, percent, _, err := s.byUtilization(u, wantedUse{name: corev1.ResourceCPU, target: autoscalingv2.MetricTarget{AverageUtilization: &half}})
		got := fmt.Sprintf("%d at %d%%", n, percent)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestValue(t *testing.T) {
	for _, c := range []struct {
		name, pods string
		spec       int32
		want       string
	}{
		{"twice the target", "R200 R200", 2, "4 at 200"},
		{"unready pods count, unless it is cpu", "R200 U200", 2, "4 at 200"},
		{"a missing one is on target on the way down", "R10 R10 R", 3, "2 at 10"},
		{"but does not turn the direction", "R110 R", 2, "2 at 110"},
	} {
		s, u := look(c.pods, c.spec)
		n, average, err := s.byValue(u, 100, "")
		if got := fmt.Sprintf("%d at %d", n, average); err != nil || got != c.want {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.want)
		}
	}
}

func TestTotalAndShare(t *testing.T) {
	s, _ := look("R R U P", 4)
	if n, err := s.byTotal(300, 100); n != 6 || err != nil { // two are ready
		t.Errorf("%d, %v, want 6", n, err)
	}
	zero := &sight{tolerance: s.tolerance}
	for value, want := range map[int64]int32{0: 0, 50: 1, 300: 3, math.MaxInt64: math.MaxInt32} {
		if n, err := zero.byTotal(value, 100); n != want || err != nil {
			t.Errorf("from zero, %d: %d, %v, want %d", value, n, err, want)
		}
		if n, _ := zero.byShare(value, 100); n != want {
			t.Errorf("from zero, a share of %d: %d, want %d", value, n, want)
		}
	}
	if n, each := s.byShare(1000, 100); n != 10 || each != 250 {
		t.Errorf("%d at %d", n, each)
	}
	if n, _ := s.byShare(420, 100); n != 4 {
		t.Errorf("%d, want what there is: 5 %% are nothing", n)
	}
	if _, err := (&sight{spec: 1}).byTotal(300, 100); err == nil || err.Error() != "unable to calculate ready pods: "+errNoPods.Error() {
		t.Error(err)
	}
}

func TestTolerance(t *testing.T) {
	h := &hpa{}
	up := resource.MustParse("0.5")
	h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{Tolerance: &up}}
	tol := toleranceOf(h)
	for ratio, want := range map[float64]bool{1.5: true, 1.51: false, 0.9: true, 0.89: false} {
		if tol.allows(ratio) != want {
			t.Errorf("%g: %t", ratio, !want)
		}
	}
}

func TestRequest(t *testing.T) {
	s, _ := look("R", 1)
	pod := s.pods[0]
	if _, err := requestOf(pod, "", corev1.ResourceMemory); err == nil || err.Error() != "missing request for memory in container c of Pod p0" {
		t.Error(err)
	}
	if _, err := requestOf(pod, "d", corev1.ResourceCPU); err == nil || err.Error() != "container d not found in Pod p0" {
		t.Error(err)
	}
	pod.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}}
	if n, err := requestOf(pod, "", corev1.ResourceCPU); n != 3000 || err != nil {
		t.Error(n, err)
	}
	if n, err := requestOf(pod, "c", corev1.ResourceCPU); n != 1000 || err != nil {
		t.Error(n, err)
	}
	// What the pod as a whole does not ask for, its containers may; and what it costs
	// to run it is part of what it asks for.
	if _, err := requestOf(pod, "", corev1.ResourceMemory); err == nil || err.Error() != "missing pod-level request for memory in Pod p0" {
		t.Error(err)
	}
	pod.Spec.Containers[0].Resources.Requests[corev1.ResourceMemory] = resource.MustParse("2")
	pod.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	if n, err := requestOf(pod, "", corev1.ResourceMemory); n != 2000 || err != nil {
		t.Error(n, err)
	}
	if n, err := requestOf(pod, "", corev1.ResourceCPU); n != 3100 || err != nil {
		t.Error(n, err)
	}
}
