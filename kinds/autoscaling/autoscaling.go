// Package autoscaling says what a HorizontalPodAutoscaler is: autoscaling/v2,
// which is stored, and autoscaling/v1, an older view of it.
package autoscaling

import (
	"fmt"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// hpa is the stored type.
type hpa = autoscalingv2.HorizontalPodAutoscaler

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{HorizontalPodAutoscaler(), HorizontalPodAutoscalerV1()}
}

// HorizontalPodAutoscaler is the kind that sizes a workload by what it measures.
func HorizontalPodAutoscaler() *kinds.Kind {
	k := row()
	k.GVK = autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")
	k.New = func() kinds.Object { return &hpa{} }
	k.NewList = func() runtime.Object { return &autoscalingv2.HorizontalPodAutoscalerList{} }
	k.Strategy = kinds.Strategy{
		Default:        kinds.Each(setDefaults),
		PrepareCreate:  kinds.Each(prepare),
		PrepareUpdate:  kinds.Pair(prepareUpdate),
		Validate:       kinds.Check(validate),
		ValidateUpdate: kinds.CheckUpdate(validateUpdate),
		Generation:     true,
	}
	k.Table.Row = kinds.Row(tableRow)
	k.Subresources = []kinds.Subresource{
		kinds.StatusRules(func(next, body *hpa) { next.Status = body.Status }, validateStatus),
	}
	return k
}

// row is what both versions have in common.
func row() *kinds.Kind {
	return &kinds.Kind{
		Resource:   "horizontalpodautoscalers",
		Singular:   "horizontalpodautoscaler",
		Short:      []string{"hpa"},
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "horizontalpodautoscalers",
		Table:      kinds.Table{Columns: kinds.Explained(horizontalPodAutoscalerTexts(), "Name", "Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age")},
	}
}

const (
	// defaultUtilization is how busy pods shall be, of their cpu request, when
	// nothing else is asked for.
	defaultUtilization = 80
	// Limits of growth in defaultPeriod seconds: as many pods as there are, or
	// four, whichever is more; of decline: none.
	defaultPeriod  = 15
	defaultPods    = 4
	defaultPercent = 100
)

func setDefaults(h *hpa) {
	if h.Spec.MinReplicas == nil {
		one := int32(1)
		h.Spec.MinReplicas = &one
	}
	if len(h.Spec.Metrics) == 0 {
		h.Spec.Metrics = []autoscalingv2.MetricSpec{cpuMetric(defaultUtilization)}
	}
	if b := h.Spec.Behavior; b != nil {
		none := int32(0)
		percent := autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: defaultPercent, PeriodSeconds: defaultPeriod}
		b.ScaleUp = completed(b.ScaleUp, &none, []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: defaultPods, PeriodSeconds: defaultPeriod}, percent,
		})
		// The window of decline is the controller's to choose.
		b.ScaleDown = completed(b.ScaleDown, nil, []autoscalingv2.HPAScalingPolicy{percent})
	}
}

func cpuMetric(utilization int32) autoscalingv2.MetricSpec {
	return autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name:   corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &utilization},
		},
	}
}

// completed are rules with defaults for what they leave open.
func completed(rules *autoscalingv2.HPAScalingRules, window *int32, policies []autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
	if rules == nil {
		rules = &autoscalingv2.HPAScalingRules{}
	}
	if rules.SelectPolicy == nil {
		most := autoscalingv2.MaxChangePolicySelect
		rules.SelectPolicy = &most
	}
	if rules.StabilizationWindowSeconds == nil {
		rules.StabilizationWindowSeconds = window
	}
	if rules.Policies == nil {
		rules.Policies = policies
	}
	return rules
}

func prepare(h *hpa) {
	h.Status = autoscalingv2.HorizontalPodAutoscalerStatus{}
	kinds.FirstGeneration(h)
}

func prepareUpdate(h, old *hpa) {
	h.Status = old.Status
	kinds.NextGeneration(h, old, !kinds.Same(h.Spec, old.Spec))
}

func tableRow(h *hpa, now time.Time) []any {
	least := kinds.Unset
	if h.Spec.MinReplicas != nil {
		least = fmt.Sprint(*h.Spec.MinReplicas)
	}
	target := h.Spec.ScaleTargetRef
	return []any{h.Name, target.Kind + "/" + target.Name, targets(h.Spec.Metrics, h.Status.CurrentMetrics), least,
		int64(h.Spec.MaxReplicas), int64(h.Status.CurrentReplicas), kinds.Created(h, now)}
}

// shownTargets are as many as a column has room for.
const shownTargets = 2

// targets shows each metric as "now/wanted".
func targets(specs []autoscalingv2.MetricSpec, statuses []autoscalingv2.MetricStatus) string {
	if len(specs) == 0 {
		return kinds.None
	}
	var list []string
	for i := range specs {
		var status autoscalingv2.MetricStatus
		if i < len(statuses) {
			status = statuses[i]
		}
		list = append(list, target(&specs[i], &status))
	}
	if more := len(list) - shownTargets; more > 0 {
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:shownTargets], ", "), more)
	}
	return strings.Join(list, ", ")
}

func target(spec *autoscalingv2.MetricSpec, status *autoscalingv2.MetricStatus) string {
	var now autoscalingv2.MetricValueStatus
	switch {
	case spec.External != nil:
		if status.External != nil {
			now = status.External.Current
		}
		return valueTarget(spec.External.Target, now)
	case spec.Object != nil:
		if status.Object != nil {
			now = status.Object.Current
		}
		return valueTarget(spec.Object.Target, now)
	case spec.Pods != nil:
		if status.Pods != nil {
			now = status.Pods.Current
		}
		return quantity(now.AverageValue) + "/" + quantity(spec.Pods.Target.AverageValue)
	case spec.Resource != nil:
		if status.Resource != nil {
			now = status.Resource.Current
		}
		return spec.Resource.Name.String() + ": " + resourceTarget(spec.Resource.Target, now)
	case spec.ContainerResource != nil:
		if status.ContainerResource != nil {
			now = status.ContainerResource.Current
		}
		return spec.ContainerResource.Name.String() + ": " + resourceTarget(spec.ContainerResource.Target, now)
	}
	return "<unknown type>"
}

func valueTarget(want autoscalingv2.MetricTarget, now autoscalingv2.MetricValueStatus) string {
	if want.AverageValue != nil {
		return quantity(now.AverageValue) + "/" + quantity(want.AverageValue) + " (avg)"
	}
	return quantity(now.Value) + "/" + quantity(want.Value)
}

func resourceTarget(want autoscalingv2.MetricTarget, now autoscalingv2.MetricValueStatus) string {
	if want.AverageValue != nil {
		return quantity(now.AverageValue) + "/" + quantity(want.AverageValue)
	}
	wanted := "<auto>"
	if want.AverageUtilization != nil {
		wanted = fmt.Sprintf("%d%%", *want.AverageUtilization)
	}
	if now.AverageUtilization == nil {
		return unknown + "/" + wanted
	}
	return fmt.Sprintf("%d%%/%s", *now.AverageUtilization, wanted)
}

const unknown = "<unknown>"

func quantity(q *resource.Quantity) string {
	if q == nil {
		return unknown
	}
	return q.String()
}
