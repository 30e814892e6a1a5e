package pressure

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Watch remembers which thresholds are crossed, and since when. It belongs to
// one goroutine.
type Watch struct {
	thresholds []Threshold
	// transition is how long a condition stays after the last crossing.
	transition time.Duration

	since map[int]time.Time // of crossed thresholds, by index
	due   map[int]bool      // those whose grace was over, last time
	last  map[corev1.NodeConditionType]time.Time
}

// NewWatch watches the thresholds.
func NewWatch(thresholds []Threshold, transition time.Duration) *Watch {
	return &Watch{
		thresholds: thresholds, transition: transition, since: map[int]time.Time{}, due: map[int]bool{},
		last: map[corev1.NodeConditionType]time.Time{},
	}
}

// Verdict is what observations come to.
type Verdict struct {
	// Conditions are those that the node reports now.
	Conditions []corev1.NodeConditionType
	// Due are the crossed thresholds whose grace is over, the first to be
	// reclaimed first.
	Due []Threshold
}

// Judge takes observations in.
func (w *Watch) Judge(seen Observations, now time.Time) Verdict {
	crossed := map[int]bool{}
	for i, t := range w.thresholds {
		o, ok := seen[t.Signal]
		crossed[i] = ok && (t.crossed(o, false) || (w.due[i] && t.crossed(o, true)))
	}
	var v Verdict
	w.due = map[int]bool{}
	for i, t := range w.thresholds {
		if !crossed[i] {
			delete(w.since, i)
			continue
		}
		if _, known := w.since[i]; !known {
			w.since[i] = now
		}
		w.last[t.Signal.Condition()] = now
		if now.Sub(w.since[i]) >= t.Grace {
			w.due[i] = true
			v.Due = append(v.Due, t)
		}
	}
	for condition, at := range w.last {
		if now.Sub(at) < w.transition || now.Equal(at) {
			v.Conditions = append(v.Conditions, condition)
		}
	}
	slices.Sort(v.Conditions)
	slices.SortStableFunc(v.Due, func(a, b Threshold) int { return order(a) - order(b) })
	return v
}

// order: memory goes before all else.
func order(t Threshold) int {
	if t.Signal.Resource() == corev1.ResourceMemory {
		return 0
	}
	return 1
}

// Crossed reports whether any threshold still is, its reclaim included.
func (w *Watch) Crossed(seen Observations) bool {
	return slices.ContainsFunc(w.thresholds, func(t Threshold) bool {
		o, ok := seen[t.Signal]
		return ok && t.crossed(o, true)
	})
}
