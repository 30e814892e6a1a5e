package autoscaling

import (
	"encoding/json"
	"maps"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// old is the type of version 1.
type old = autoscalingv1.HorizontalPodAutoscaler

// What version 1 has no field for travels in annotations, as upstream writes
// them: kubectl and others read and write these.
const (
	metricsAnnotation    = "autoscaling.alpha.kubernetes.io/metrics"
	currentAnnotation    = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionsAnnotation = "autoscaling.alpha.kubernetes.io/conditions"
	behaviorAnnotation   = "autoscaling.alpha.kubernetes.io/behavior"
)

// HorizontalPodAutoscalerV1 is the kind as version 1 shows it: by the use of cpu.
func HorizontalPodAutoscalerV1() *kinds.Kind {
	k := row()
	k.GVK = autoscalingv1.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")
	k.New = func() kinds.Object { return &old{} }
	k.NewList = func() runtime.Object { return &autoscalingv1.HorizontalPodAutoscalerList{} }
	k.Strategy = kinds.Strategy{
		Default: kinds.Each(func(h *old) {
			if h.Spec.MinReplicas == nil {
				one := int32(1)
				h.Spec.MinReplicas = &one
			}
		}),
		PrepareCreate: kinds.Each(func(h *old) { through(h, prepare) }),
		PrepareUpdate: kinds.Pair(func(h, was *old) {
			through(h, func(next *hpa) { prepareUpdate(next, toV2(was)) })
		}),
		Validate:       kinds.Check(func(h *old) field.ErrorList { return validate(toV2(h)) }),
		ValidateUpdate: kinds.CheckUpdate(func(h, was *old) field.ErrorList { return validateUpdate(toV2(h), toV2(was)) }),
		Generation:     true,
	}
	k.Table.Row = kinds.Row(func(h *old, now time.Time) []any { return tableRow(toV2(h), now) })
	k.Subresources = []kinds.Subresource{kinds.StatusRules(
		func(next, body *old) {
			status := toV2(body).Status
			through(next, func(h *hpa) { h.Status = status })
		},
		func(h, was *old) field.ErrorList { return validateStatus(toV2(h), toV2(was)) },
	)}
	k.View = &kinds.View{
		Stored:     autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"),
		ToStored:   func(obj kinds.Object) kinds.Object { return toV2(obj.(*old)) },
		FromStored: func(stored kinds.Object) kinds.Object { return toV1(stored.(*hpa)) },
	}
	return k
}

// through changes h as version 2.
func through(h *old, change func(*hpa)) {
	next := toV2(h)
	change(next)
	*h = *toV1(next)
}

// toV2 makes a complete version 2 of h, with its defaults.
func toV2(h *old) *hpa {
	in := h.DeepCopy()
	out := &hpa{ObjectMeta: in.ObjectMeta}
	out.APIVersion, out.Kind = autoscalingv2.SchemeGroupVersion.String(), "HorizontalPodAutoscaler"
	out.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference(in.Spec.ScaleTargetRef)
	out.Spec.MinReplicas, out.Spec.MaxReplicas = in.Spec.MinReplicas, in.Spec.MaxReplicas
	var metrics []autoscalingv1.MetricSpec
	if read(in.Annotations, metricsAnnotation, &metrics) {
		for i := range metrics {
			out.Spec.Metrics = append(out.Spec.Metrics, metricToV2(&metrics[i]))
		}
	}
	if u := in.Spec.TargetCPUUtilizationPercentage; u != nil {
		out.Spec.Metrics = append(out.Spec.Metrics, cpuMetric(*u))
	}
	var behavior autoscalingv2.HorizontalPodAutoscalerBehavior
	if read(in.Annotations, behaviorAnnotation, &behavior) && behavior != (autoscalingv2.HorizontalPodAutoscalerBehavior{}) {
		out.Spec.Behavior = &behavior
	}
	out.Status = statusToV2(in)
	out.Annotations = without(in.Annotations)
	setDefaults(out)
	return out
}

func statusToV2(in *old) autoscalingv2.HorizontalPodAutoscalerStatus {
	out := autoscalingv2.HorizontalPodAutoscalerStatus{
		ObservedGeneration: in.Status.ObservedGeneration, LastScaleTime: in.Status.LastScaleTime,
		CurrentReplicas: in.Status.CurrentReplicas, DesiredReplicas: in.Status.DesiredReplicas,
	}
	var current []autoscalingv1.MetricStatus
	if read(in.Annotations, currentAnnotation, &current) { // it knows more than the field
		for i := range current {
			out.CurrentMetrics = append(out.CurrentMetrics, statusOfMetricToV2(&current[i]))
		}
	} else if u := in.Status.CurrentCPUUtilizationPercentage; u != nil {
		out.CurrentMetrics = []autoscalingv2.MetricStatus{{
			Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricStatus{
				Name: corev1.ResourceCPU, Current: autoscalingv2.MetricValueStatus{AverageUtilization: u},
			},
		}}
	}
	read(in.Annotations, conditionsAnnotation, &out.Conditions)
	return out
}

// toV1 shows h as version 1.
func toV1(h *hpa) *old {
	in := h.DeepCopy()
	out := &old{ObjectMeta: in.ObjectMeta}
	out.APIVersion, out.Kind = autoscalingv1.SchemeGroupVersion.String(), "HorizontalPodAutoscaler"
	out.Annotations = without(in.Annotations)
	out.Spec = autoscalingv1.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv1.CrossVersionObjectReference(in.Spec.ScaleTargetRef),
		MinReplicas:    in.Spec.MinReplicas, MaxReplicas: in.Spec.MaxReplicas,
	}
	out.Status = autoscalingv1.HorizontalPodAutoscalerStatus{
		ObservedGeneration: in.Status.ObservedGeneration, LastScaleTime: in.Status.LastScaleTime,
		CurrentReplicas: in.Status.CurrentReplicas, DesiredReplicas: in.Status.DesiredReplicas,
	}
	var others []autoscalingv1.MetricSpec
	for i := range in.Spec.Metrics {
		m := &in.Spec.Metrics[i]
		if m.Resource == nil || m.Resource.Name != corev1.ResourceCPU || m.Resource.Target.AverageUtilization == nil {
			others = append(others, metricToV1(m))
		} else if out.Spec.TargetCPUUtilizationPercentage == nil {
			out.Spec.TargetCPUUtilizationPercentage = m.Resource.Target.AverageUtilization
		}
	}
	var current []autoscalingv1.MetricStatus
	more := len(in.Status.CurrentMetrics) > 1 // than the field can say
	for i := range in.Status.CurrentMetrics {
		m := &in.Status.CurrentMetrics[i]
		current = append(current, statusOfMetricToV1(m))
		if m.Resource == nil || m.Resource.Name != corev1.ResourceCPU || m.Resource.Current.AverageUtilization == nil {
			more = true
			continue
		}
		out.Status.CurrentCPUUtilizationPercentage = m.Resource.Current.AverageUtilization
		more = more || m.Resource.Current.AverageValue != nil
	}
	note(&out.ObjectMeta, metricsAnnotation, others, len(others) > 0)
	note(&out.ObjectMeta, currentAnnotation, current, more)
	note(&out.ObjectMeta, behaviorAnnotation, in.Spec.Behavior, in.Spec.Behavior != nil)
	note(&out.ObjectMeta, conditionsAnnotation, in.Status.Conditions, len(in.Status.Conditions) > 0)
	return out
}

// without are annotations without those that stand for fields.
func without(annotations map[string]string) map[string]string {
	next := maps.Clone(annotations)
	for _, key := range []string{metricsAnnotation, currentAnnotation, behaviorAnnotation, conditionsAnnotation} {
		delete(next, key)
	}
	if len(next) == 0 && len(annotations) > 0 {
		return nil
	}
	return next
}

// read decodes an annotation, if it is there and can be; upstream, too, passes
// over one that cannot.
func read(annotations map[string]string, key string, into any) bool {
	text, ok := annotations[key]
	return ok && json.Unmarshal([]byte(text), into) == nil
}

func note(meta *metav1.ObjectMeta, key string, value any, worth bool) {
	if !worth {
		return
	}
	data, err := json.Marshal(value)
	if err != nil {
		return // API types that were decoded can be encoded
	}
	if meta.Annotations == nil {
		meta.Annotations = map[string]string{}
	}
	meta.Annotations[key] = string(data)
}
