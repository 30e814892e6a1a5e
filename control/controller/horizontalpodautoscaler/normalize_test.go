package horizontalpodautoscaler

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// A story: each line is a time in seconds, how many replicas there are and how
// many the metrics ask for, and after the arrow what comes of it.
func tell(t *testing.T, h *hpa, story string) {
	t.Helper()
	m, begin := &memory{}, time.Unix(0, 0)
	lines := bufio.NewScanner(strings.NewReader(strings.TrimSpace(story)))
	for lines.Scan() {
		said, want, _ := strings.Cut(strings.TrimSpace(lines.Text()), " → ")
		var at, current, desired int32
		if _, err := fmt.Sscanf(said, "%d: %d wants %d", &at, &current, &desired); err != nil {
			t.Fatalf("%q: %v", said, err)
		}
		now := begin.Add(time.Duration(at) * time.Second)
		m.begin(current, now)
		n := normalize(h, m, request{current, desired, least(h), h.Spec.MaxReplicas}, now)
		if h.Spec.Behavior != nil && n.desired != current {
			m.scaled(current, n.desired, now)
		}
		if got := fmt.Sprintf("%d %s %s", n.desired, n.stable.reason, n.limit.reason); got != want {
			t.Errorf("%s\n got %s\nwant %s", said, got, want)
		}
	}
}

func sized(least, most int32) *hpa {
	h := &hpa{}
	h.Spec.MinReplicas, h.Spec.MaxReplicas = &least, most
	return h
}

func rules(window int32, selected autoscalingv2.ScalingPolicySelect, policies ...autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
	return &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &window, SelectPolicy: &selected, Policies: policies}
}

func pods(n, seconds int32) autoscalingv2.HPAScalingPolicy {
	return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: n, PeriodSeconds: seconds}
}

func percent(n, seconds int32) autoscalingv2.HPAScalingPolicy {
	return autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: n, PeriodSeconds: seconds}
}

func TestWithoutRules(t *testing.T) {
	tell(t, sized(2, 10), `
		0: 2 wants 9 → 4 ReadyForNewScale ScaleUpLimit
		15: 4 wants 9 → 8 ReadyForNewScale ScaleUpLimit
		30: 8 wants 12 → 10 ReadyForNewScale TooManyReplicas
		45: 10 wants 5 → 10 ScaleDownStabilized TooManyReplicas
		331: 10 wants 1 → 5 ScaleDownStabilized DesiredWithinRange
		700: 5 wants 1 → 2 ReadyForNewScale TooFewReplicas
		715: 2 wants 2 → 2 ReadyForNewScale DesiredWithinRange`)
}

func TestRules(t *testing.T) {
	const most, fewest, off = autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect
	h := sized(1, 100)
	h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{
		ScaleUp:   rules(0, most, pods(2, 60), percent(50, 60)),
		ScaleDown: rules(60, fewest, pods(1, 60), percent(50, 60)),
	}
	tell(t, h, `
		0: 10 wants 50 → 15 ReadyForNewScale ScaleUpLimit
		15: 15 wants 50 → 15 ReadyForNewScale ScaleUpLimit
		61: 15 wants 50 → 23 ReadyForNewScale ScaleUpLimit
		76: 23 wants 10 → 23 ScaleDownStabilized DesiredWithinRange
		200: 23 wants 10 → 22 ReadyForNewScale ScaleDownLimit
		215: 22 wants 10 → 22 ReadyForNewScale ScaleDownLimit
		261: 22 wants 10 → 21 ReadyForNewScale ScaleDownLimit`)

	h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{
		ScaleUp:   rules(60, most, percent(100, 15)),
		ScaleDown: rules(0, off, pods(1, 60)),
	}
	tell(t, h, `
		0: 4 wants 4 → 4 ReadyForNewScale DesiredWithinRange
		15: 4 wants 8 → 4 ScaleUpStabilized DesiredWithinRange
		61: 4 wants 7 → 7 ReadyForNewScale DesiredWithinRange
		90: 7 wants 1 → 7 ReadyForNewScale ScaleDownLimit`)
}

func TestBoundsAndZero(t *testing.T) {
	asleep := sized(0, 5)
	asleep.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType}}
	stopped := asleep.DeepCopy()
	asleep.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.ScaledToZero, Status: "True"}}
	for _, c := range []struct {
		name    string
		h       *hpa
		current int32
		want    decision
	}{
		{"above", sized(1, 5), 7, decision{desired: 5, reason: "Current number of replicas above Spec.MaxReplicas"}},
		{"below", sized(3, 5), 1, decision{desired: 3, reason: belowLeast}},
		{"between", sized(3, 5), 4, decision{measure: true}},
		{"stopped by a person", stopped, 0, decision{disabled: true}},
		{"stopped by a person, with pods' metrics", sized(1, 5), 0, decision{disabled: true}},
		{"asleep", asleep, 0, decision{measure: true}},
	} {
		if got := first(c.h, c.current, least(c.h)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
