package horizontalpodautoscaler

import (
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

const belowLeast = "Current number of replicas below Spec.MinReplicas"

// decision is what becomes of a workload.
type decision struct {
	desired int32
	reason  string
	// measure: the metrics decide. Otherwise the bounds have.
	measure bool
	// disabled: somebody has stopped the workload.
	disabled bool
}

// first is what the bounds alone decide.
func first(h *hpa, current, least int32) decision {
	switch {
	case current == 0 && scaledToZero(h) && (least != 0 || elsewhere(h)):
		return decision{measure: true}
	case current == 0:
		return decision{disabled: true}
	case current > h.Spec.MaxReplicas:
		return decision{desired: h.Spec.MaxReplicas, reason: "Current number of replicas above Spec.MaxReplicas"}
	case current < least:
		return decision{desired: least, reason: belowLeast}
	}
	return decision{measure: true}
}

func least(h *hpa) int32 {
	if h.Spec.MinReplicas == nil {
		return 1
	}
	return *h.Spec.MinReplicas
}

// elsewhere says whether a metric can be told without pods.
func elsewhere(h *hpa) bool {
	for i := range h.Spec.Metrics {
		if t := h.Spec.Metrics[i].Type; t == autoscalingv2.ObjectMetricSourceType || t == autoscalingv2.ExternalMetricSourceType {
			return true
		}
	}
	return false
}

// scaledToZero says whether it was this controller that stopped the workload.
func scaledToZero(h *hpa) bool {
	for _, c := range h.Status.Conditions {
		if c.Type == autoscalingv2.ScaledToZero {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// named is an autoscaler as messages show it.
type named struct{ name, namespace string }

// String is how upstream names an object: "namespace/name".
func (n named) String() string { return n.namespace + "/" + n.name }

func (n named) compare(o named) int { return strings.Compare(n.name, o.name) }
