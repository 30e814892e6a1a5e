package autoscaling

import (
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Nothing is lost on the way through version 1 and back.
func TestThroughV1(t *testing.T) {
	q, busy, generation := resource.MustParse("3"), int32(60), int64(4)
	h := &hpa{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"mine": "stays"}},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MaxReplicas:    5,
			Metrics: []autoscalingv2.MetricSpec{
				{Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: "m"}, Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: &q},
				}},
				{Type: "External", External: &autoscalingv2.ExternalMetricSource{
					Metric: autoscalingv2.MetricIdentifier{Name: "e"}, Target: autoscalingv2.MetricTarget{Type: "Value", Value: &q},
				}},
				{Type: "Object", Object: &autoscalingv2.ObjectMetricSource{
					DescribedObject: autoscalingv2.CrossVersionObjectReference{Kind: "Service", Name: "s"},
					Metric:          autoscalingv2.MetricIdentifier{Name: "o"}, Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: &q},
				}},
				{Type: "ContainerResource", ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
					Name: corev1.ResourceMemory, Container: "c", Target: autoscalingv2.MetricTarget{Type: "AverageValue", AverageValue: &q},
				}},
				cpuMetric(busy),
			},
			Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{Tolerance: &q}},
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			CurrentReplicas: 2, DesiredReplicas: 3, ObservedGeneration: &generation,
			CurrentMetrics: []autoscalingv2.MetricStatus{{Type: "Resource", Resource: &autoscalingv2.ResourceMetricStatus{
				Name: corev1.ResourceCPU, Current: autoscalingv2.MetricValueStatus{AverageUtilization: &busy, AverageValue: &q},
			}}},
			Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: "AbleToScale", Status: "True", Reason: "r", Message: "m"}},
		},
	}
	setDefaults(h)
	h.APIVersion, h.Kind = "autoscaling/v2", "HorizontalPodAutoscaler"
	seen := toV1(h)
	if *seen.Spec.TargetCPUUtilizationPercentage != busy || *seen.Status.CurrentCPUUtilizationPercentage != busy || len(seen.Annotations) != 5 {
		t.Errorf("version 1: %+v, %+v, %v", seen.Spec, seen.Status, seen.Annotations)
	}
	if back := toV2(seen); !equality.Semantic.DeepEqual(back, h) {
		t.Errorf("\n got %+v\nwant %+v", back, h)
	}
	if errs := validate(h); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
}

func TestV1Defaults(t *testing.T) {
	got := toV2(&old{Spec: autoscalingv1.HorizontalPodAutoscalerSpec{MaxReplicas: 3}})
	if len(got.Spec.Metrics) != 1 || *got.Spec.Metrics[0].Resource.Target.AverageUtilization != 80 || *got.Spec.MinReplicas != 1 {
		t.Errorf("defaults %+v", got.Spec)
	}
}

func TestValidate(t *testing.T) {
	valid := func() *hpa {
		h := &hpa{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, MaxReplicas: 3,
		}}
		setDefaults(h)
		return h
	}
	zero, nine := int32(0), int32(9)
	for want, edit := range map[string]func(*hpa){
		"":                                 func(*hpa) {},
		"spec.maxReplicas: Required value": func(h *hpa) { h.Spec.MaxReplicas, h.Spec.MinReplicas = 0, nil },
		"spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`": func(h *hpa) {
			h.Spec.MinReplicas = &nine
		},
		"spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas": func(h *hpa) {
			h.Spec.MinReplicas = &zero
		},
		`spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group`: func(h *hpa) {
			h.Spec.ScaleTargetRef.APIVersion = "v1"
		},
		"spec.metrics[0].pods: Required value: must populate information for the given metric source": func(h *hpa) {
			h.Spec.Metrics[0] = autoscalingv2.MetricSpec{Type: "Pods"}
		},
		"spec.behavior.scaleDown.policies: Required value: must specify at least one Policy": func(h *hpa) {
			h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{}}}
		},
	} {
		h := valid()
		edit(h)
		got := ""
		if errs := validate(h); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
	rc := valid()
	rc.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "ReplicationController", Name: "rc"}
	if errs := validate(rc); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
}

func TestTargets(t *testing.T) {
	busy, q := int32(42), resource.MustParse("500m")
	specs := []autoscalingv2.MetricSpec{cpuMetric(80), {Type: "Pods", Pods: &autoscalingv2.PodsMetricSource{Target: autoscalingv2.MetricTarget{AverageValue: &q}}}, cpuMetric(1)}
	now := []autoscalingv2.MetricStatus{{Resource: &autoscalingv2.ResourceMetricStatus{Current: autoscalingv2.MetricValueStatus{AverageUtilization: &busy}}}}
	if got, want := targets(specs, now), "cpu: 42%/80%, <unknown>/500m + 1 more..."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
