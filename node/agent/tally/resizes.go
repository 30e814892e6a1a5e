package tally

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// resizes counts changes of the resources of pods that run.
type resizes struct {
	asked, infeasible, accepted *prometheus.CounterVec
	millis, waited              *prometheus.HistogramVec
}

func newResizes(t *Tally) resizes {
	return resizes{
		asked:      counters(t, "container_requested_resizes_total", "Changes of containers' resources that were asked for, each resource by itself.", "resource", "requirement", "operation"),
		infeasible: counters(t, "pod_infeasible_resizes_total", "Resizes of pods that this node can never do.", "reason_detail"),
		accepted:   counters(t, "pod_deferred_accepted_resizes_total", "Resizes of pods that had to wait and then began, by what made room.", "retry_trigger"),
		millis: histograms(t, "kubelet_pod_resize_duration_milliseconds", "Milliseconds that it took to give a pod its new resources.",
			[]float64{10, 50, 100, 500, 1000, 2000, 5000, 10000, 20000, 30000, 60000, 120000, 300000, 600000}, "success"),
		waited: histograms(t, "kubelet_pod_deferred_resize_duration_seconds", "Seconds that resizes had to wait, by how that ended (accepted, reverted, terminated) and by the pod's priority.",
			[]float64{5, 10, 15, 20, 30, 45, 60, 90, 120, 150, 180, 300, 600, 1200, 1800, 3600}, "resolution", "priority_bucket"),
	}
}

// How the waiting of a resize ends.
const (
	Accepted = "accepted"
	Reverted = "reverted"
	Ended    = "terminated"
)

// ResizeAsked counts what of a pod's resources was changed; it says whether anything was.
func (t *Tally) ResizeAsked(before, now *corev1.Pod) bool {
	any := false
	for _, lists := range [][2][]corev1.Container{{before.Spec.InitContainers, now.Spec.InitContainers}, {before.Spec.Containers, now.Spec.Containers}} {
		for i := range lists[0] {
			for j := range lists[1] {
				if lists[0][i].Name == lists[1][j].Name {
					any = t.changed(lists[0][i].Resources, lists[1][j].Resources) || any
				}
			}
		}
	}
	return any
}

func (t *Tally) changed(before, now corev1.ResourceRequirements) bool {
	any := false
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceCPU} {
		for requirement, lists := range map[string][2]corev1.ResourceList{"requests": {before.Requests, now.Requests}, "limits": {before.Limits, now.Limits}} {
			if change := change(lists[0][name], lists[1][name]); change != "" {
				t.resizes.asked.WithLabelValues(string(name), requirement, change).Inc()
				any = true
			}
		}
	}
	return any
}

// change is what became of an amount, "" for nothing; 0 is none at all.
func change(before, now resource.Quantity) string {
	switch {
	case before.Cmp(now) == 0:
		return ""
	case before.IsZero():
		return "add"
	case now.IsZero():
		return "remove"
	case before.Cmp(now) < 0:
		return "increase"
	}
	return "decrease"
}

// ResizeInfeasible counts a resize that can never be done here.
func (t *Tally) ResizeInfeasible(detail string) { t.resizes.infeasible.WithLabelValues(detail).Inc() }

// ResizeDone counts the work on a pod's new resources.
func (t *Tally) ResizeDone(took time.Duration, err error) {
	t.resizes.millis.WithLabelValues(strconv.FormatBool(err == nil)).Observe(float64(took.Milliseconds()))
}

// ResizeWaited counts the end of a resize's waiting; trigger is what made room, if it
// was accepted.
func (t *Tally) ResizeWaited(pod *corev1.Pod, resolution, trigger string, took time.Duration) {
	t.resizes.waited.WithLabelValues(resolution, Priority(pod)).Observe(took.Seconds())
	if resolution == Accepted {
		t.resizes.accepted.WithLabelValues(trigger).Inc()
	}
}

// Priority is the class of a pod's priority, in upstream's words.
func Priority(pod *corev1.Pod) string {
	const critical, high, veryLow = 2_000_000_000, 100_000, -1000
	p := int32(0)
	if pod.Spec.Priority != nil {
		p = *pod.Spec.Priority
	}
	switch {
	case p >= critical:
		return "system-critical"
	case p >= high:
		return "high"
	case p > 0:
		return "medium"
	case p == 0:
		return "normal"
	case p > veryLow:
		return "low"
	}
	return "very-low"
}
