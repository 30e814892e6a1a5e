package measure

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// Who is to blame when an autoscaler fails; upstream's words.
const (
	NoError       = "none"
	SpecError     = "spec"
	InternalError = "internal"
)

// action is what comes of a wish for other replicas.
func action(current, wanted int32) string {
	switch {
	case wanted > current:
		return "scale_up"
	case wanted < current:
		return "scale_down"
	}
	return "none"
}

// Scaling is a look at an autoscaler, or at one of its metrics.
type Scaling struct {
	Current, Wanted int32
	// Blame is one of the errors above.
	Blame string
	Began time.Time
}

// Autoscaled notes a look at an autoscaler.
func (m *Metrics) Autoscaled(s Scaling) {
	if m == nil {
		return
	}
	a := action(s.Current, s.Wanted)
	m.scalings.WithLabelValues(a, s.Blame).Inc()
	m.scalingSeconds.WithLabelValues(a, s.Blame).Observe(since(s.Began))
}

// Computed notes what one metric of an autoscaler asks for.
func (m *Metrics) Computed(kind autoscalingv2.MetricSourceType, s Scaling) {
	if m == nil {
		return
	}
	a := action(s.Current, s.Wanted)
	m.computations.WithLabelValues(a, s.Blame, string(kind)).Inc()
	m.computationSeconds.WithLabelValues(a, s.Blame, string(kind)).Observe(since(s.Began))
}

// StatefulSet notes how many of a set's pods may be missing, and are.
func (m *Metrics) StatefulSet(set *appsv1.StatefulSet, most, missing int) {
	if m == nil {
		return
	}
	policy := string(set.Spec.PodManagementPolicy)
	m.setMost.WithLabelValues(set.Namespace, set.Name, policy).Set(float64(most))
	m.setMissing.WithLabelValues(set.Namespace, set.Name, policy).Set(float64(missing))
}

// StatefulSetGone forgets a set.
func (m *Metrics) StatefulSetGone(namespace, name string) {
	if m == nil {
		return
	}
	gone := map[string]string{"statefulset_namespace": namespace, "statefulset_name": name}
	m.setMost.DeletePartialMatch(gone)
	m.setMissing.DeletePartialMatch(gone)
}
