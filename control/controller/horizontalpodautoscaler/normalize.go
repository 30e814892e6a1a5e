package horizontalpodautoscaler

import (
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

const (
	// window is how long a workload stays as large as it had to be, unless its
	// autoscaler says otherwise.
	window = 5 * time.Minute
	// Without rules of its own a workload at most doubles, or grows to four.
	growthFactor = 2
	growthLeast  = 4
)

// request is what is asked of normalize: all in replicas.
type request struct{ current, desired, least, most int32 }

// why is a reason with its sentence.
type why struct{ reason, message string }

// normalized is what is allowed, and why.
type normalized struct {
	desired       int32
	stable, limit why
	limited       bool
}

var (
	asWanted    = why{"ReadyForNewScale", "recommended size matches current size"}
	upStable    = why{"ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation"}
	downStable  = why{"ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation"}
	withinRange = why{"DesiredWithinRange", "the desired count is within the acceptable range"}
	tooFast     = why{"ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"}
	tooMany     = why{"TooManyReplicas", "the desired replica count is more than the maximum replica count"}
	tooFastDown = why{"ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"}
	tooFew      = why{"TooFewReplicas", "the desired replica count is less than the minimum replica count"}
)

// normalize makes of a recommendation one that is steady, in bounds and not too
// fast. It remembers the recommendation.
func normalize(h *hpa, m *memory, q request, now time.Time) normalized {
	var n normalized
	var stabilized int32
	if h.Spec.Behavior == nil {
		stabilized = m.highest(q.desired, now)
		n.stable = downStable
	} else {
		stabilized, n.stable = m.between(h.Spec.Behavior, q, now)
	}
	if stabilized == q.desired {
		n.stable = asWanted
	}
	q.desired = stabilized
	if h.Spec.Behavior == nil {
		n.desired, n.limit = bounded(q)
	} else {
		n.desired, n.limit = m.paced(h.Spec.Behavior, q, now)
	}
	n.limited = n.desired != stabilized
	return n
}

// bounded keeps a workload without rules from growing too fast.
func bounded(q request) (int32, why) {
	most, reason := q.most, tooMany
	if limit := max(growthFactor*q.current, growthLeast); most > limit {
		most, reason = limit, tooFast
	}
	switch {
	case q.desired < q.least:
		return q.least, tooFew
	case q.desired > most:
		return most, reason
	}
	return q.desired, withinRange
}

// memory is an autoscaler's past, as far as its rules look back. It begins anew
// with the process, as upstream's does.
type memory struct {
	wanted  []wish
	changes []change
}

// wish is a recommendation as it was before anything was made of it.
type wish struct {
	replicas int32
	at       time.Time
}

// change is a change of scale, down when negative.
type change struct {
	by int32
	at time.Time
}

// farthest is the longest that any rule may look back: the API allows an hour for
// windows and half of that for periods.
const farthest = time.Hour

// paced keeps a workload to the rates of its rules.
func (m *memory) paced(b *autoscalingv2.HorizontalPodAutoscalerBehavior, q request, now time.Time) (int32, why) {
	switch {
	case q.desired > q.current:
		most, reason := q.most, tooMany
		if limit := max(m.limit(b.ScaleUp, q.current, +1, now), q.current); most > limit {
			most, reason = limit, tooFast
		}
		if q.desired > most {
			return most, reason
		}
	case q.desired < q.current:
		least, reason := q.least, tooFew
		if limit := min(m.limit(b.ScaleDown, q.current, -1, now), q.current); least < limit {
			least, reason = limit, tooFastDown
		}
		if q.desired < least {
			return least, reason
		}
	}
	return q.desired, withinRange
}

// limit is how far the rules let a workload go up (direction +1) or down (-1):
// each policy from where its period began, and of the policies the one that
// changes most, or least where the rules say so.
func (m *memory) limit(rules *autoscalingv2.HPAScalingRules, current int32, direction int, now time.Time) int32 {
	selected := autoscalingv2.MaxChangePolicySelect
	if rules.SelectPolicy != nil {
		selected = *rules.SelectPolicy
	}
	if selected == autoscalingv2.DisabledPolicySelect {
		return current
	}
	highest := (direction > 0) == (selected != autoscalingv2.MinChangePolicySelect)
	result := int32(math.MaxInt32)
	if highest {
		result = math.MinInt32
	}
	for _, p := range rules.Policies {
		from := current - m.change(time.Duration(p.PeriodSeconds)*time.Second, now)
		to := from + int32(direction)*p.Value
		if p.Type == autoscalingv2.PercentScalingPolicy {
			exact := float64(from) * (1 + float64(direction)*float64(p.Value)/100)
			if direction > 0 {
				exact = math.Ceil(exact) // or a single pod would never become two
			}
			to = int32(exact)
		}
		if highest {
			result = max(result, to)
		} else {
			result = min(result, to)
		}
	}
	return result
}

// begin remembers what a workload was found with.
func (m *memory) begin(current int32, now time.Time) {
	if m.wanted == nil {
		m.wanted = []wish{{current, now}}
	}
}

func (m *memory) note(replicas int32, now time.Time) {
	kept := m.wanted[:0]
	for _, w := range m.wanted {
		if now.Sub(w.at) <= farthest {
			kept = append(kept, w)
		}
	}
	kept = append(kept, wish{replicas, now})
	m.wanted = kept
}

// scaled remembers a change.
func (m *memory) scaled(from, to int32, now time.Time) {
	kept := m.changes[:0]
	for _, c := range m.changes {
		if now.Sub(c.at) <= farthest {
			kept = append(kept, c)
		}
	}
	kept = append(kept, change{to - from, now})
	m.changes = kept
}

// change is by how much the last period has changed the workload.
func (m *memory) change(period time.Duration, now time.Time) (by int32) {
	for _, c := range m.changes {
		if c.at.After(now.Add(-period)) {
			by += c.by
		}
	}
	return by
}

// highest is the highest of the recommendations in the usual window.
func (m *memory) highest(desired int32, now time.Time) int32 {
	top := desired
	for _, w := range m.wanted {
		if !w.at.Before(now.Add(-window)) {
			top = max(top, w.replicas)
		}
	}
	m.note(desired, now)
	return top
}

// between keeps the current size as long as the recommendations of both windows
// allow: not below the lowest of the one for growth, nor above the highest of the
// one for decline.
func (m *memory) between(b *autoscalingv2.HorizontalPodAutoscalerBehavior, q request, now time.Time) (int32, why) {
	low, high := q.desired, q.desired
	up, down := now.Add(-windowOf(b.ScaleUp, 0)), now.Add(-windowOf(b.ScaleDown, window))
	for _, w := range m.wanted {
		if w.at.After(up) {
			low = min(low, w.replicas)
		}
		if w.at.After(down) {
			high = max(high, w.replicas)
		}
	}
	m.note(q.desired, now)
	reason := downStable
	if q.desired >= q.current {
		reason = upStable
	}
	return min(max(q.current, low), high), reason
}

func windowOf(rules *autoscalingv2.HPAScalingRules, usual time.Duration) time.Duration {
	if rules == nil || rules.StabilizationWindowSeconds == nil {
		return usual
	}
	return time.Duration(*rules.StabilizationWindowSeconds) * time.Second
}
