package sim_test

import (
	"testing"
	"testing/synctest"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// What is written by one version of the API is read by the other.
func TestAutoscalerVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		v1 := client.Resource[*autoscalingv1.HorizontalPodAutoscaler]{
			GroupVersionResource: autoscalingv1.SchemeGroupVersion.WithResource("horizontalpodautoscalers"), Kind: "HorizontalPodAutoscaler", Namespaced: true,
		}
		made, err := v1.Create(ctx, p.admin, &autoscalingv1.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"},
			Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
				MaxReplicas: 4, ScaleTargetRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			},
		})
		if err != nil || made.Generation != 1 || *made.Spec.MinReplicas != 1 || *made.Spec.TargetCPUUtilizationPercentage != 80 {
			t.Fatalf("%v, %+v", err, made)
		}
		h, err := client.HorizontalPodAutoscalers.Get(ctx, p.admin, "default", "a")
		if err != nil || len(h.Spec.Metrics) != 1 || h.Spec.Metrics[0].Resource.Name != corev1.ResourceCPU {
			t.Fatalf("%v, %+v", err, h.Spec)
		}
		h = h.DeepCopy()
		h.Spec.MaxReplicas = 9
		h.ResourceVersion = "" // the controller writes, too
		if h, err = client.HorizontalPodAutoscalers.Update(ctx, p.admin, h); err != nil || h.Generation != 2 {
			t.Fatalf("%v, generation %d", err, h.Generation)
		}
		p.settle()
		h = h.DeepCopy()
		h.ResourceVersion = ""
		h.Status.CurrentReplicas = 3
		h.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.AbleToScale, Status: corev1.ConditionTrue}}
		if _, err = client.HorizontalPodAutoscalers.UpdateStatus(ctx, p.admin, h); err != nil {
			t.Fatal(err)
		}
		made, err = v1.Get(ctx, p.admin, "default", "a")
		if err != nil || made.Spec.MaxReplicas != 9 || made.Status.CurrentReplicas != 3 || made.Annotations["autoscaling.alpha.kubernetes.io/conditions"] == "" {
			t.Errorf("%v, %+v", err, made)
		}
	})
}
