package sim_test

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// evict asks for a pod's eviction.
func (p *plane) evict(name string) error {
	at := target.Of(client.Pods.GroupVersionResource, "default").Object(name).Sub("eviction")
	_, err := p.admin.Create(p.Context(), at, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}, metav1.CreateOptions{})
	return err
}

func (p *plane) budget(name string) *policyv1.PodDisruptionBudget {
	p.Helper()
	b, err := client.PodDisruptionBudgets.Get(p.Context(), p.admin, "default", name)
	if err != nil {
		p.Fatal(err)
	}
	return b
}

// A budget lets one pod go, and the next only when another is ready in its place.
func TestBudgetGuardsEvictions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		if _, err := client.ReplicationControllers.Create(ctx, p.admin, controllerOf("rc", 3)); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.ready("default")
		p.settle()
		one := intstr.FromString("34%") // of three, rounded up: two; so one may go
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"},
			Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": "rc"}}}}
		if _, err := client.PodDisruptionBudgets.Create(ctx, p.admin, b); err != nil {
			t.Fatal(err)
		}
		p.settle()
		if s := p.budget("b").Status; s.DisruptionsAllowed != 1 || s.CurrentHealthy != 3 || s.DesiredHealthy != 2 || s.ExpectedPods != 3 || s.ObservedGeneration != 1 {
			t.Fatalf("status %+v", s)
		}
		pods := p.list("default", "name=rc")
		// Who would break what cannot be read does not evict.
		at := target.Of(client.Pods.GroupVersionResource, "default").Object(pods[0].Name).Sub("eviction")
		_, err := p.admin.Create(ctx, at, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: pods[0].Name},
			DeleteOptions: &metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: ptr(true)}}, metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) {
			t.Errorf("with an option that is not for evictions: %v", err)
		}
		if err := p.evict(pods[0].Name); err != nil {
			t.Fatal(err)
		}
		err = p.evict(pods[1].Name)
		if !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
			t.Fatalf("the second eviction: %v", err)
		}
		p.settle()
		if s := p.budget("b").Status; s.DisruptionsAllowed != 0 || s.CurrentHealthy != 2 || len(s.DisruptedPods) != 0 {
			t.Errorf("status %+v", s)
		}
		p.ready("default")
		p.settle()
		if err := p.evict(pods[1].Name); err != nil {
			t.Errorf("with three ready again: %v", err)
		}
	})
}

// An owner without a scale cannot be counted: nothing is allowed, and the
// condition tells.
func TestBudgetThatCannotTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		owner, err := client.ConfigMaps.Create(ctx, p.admin, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "o"}})
		if err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "odd", Labels: map[string]string{"name": "odd"},
				OwnerReferences: []metav1.OwnerReference{client.ConfigMaps.Owner(owner)}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		half := intstr.FromString("50%")
		b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"},
			Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &half, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": "odd"}}}}
		if _, err := client.PodDisruptionBudgets.Create(ctx, p.admin, b); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Pods.Create(ctx, p.admin, pod); err != nil {
			t.Fatal(err)
		}
		p.settle()
		c := p.budget("b").Status.Conditions
		if len(c) != 1 || c[0].Reason != policyv1.SyncFailedReason || c[0].Message != "configmaps does not implement the scale subresource" {
			t.Errorf("conditions %+v", c)
		}
	})
}

// A disruption that does not come is taken back after two minutes.
func TestStaleDisruptionIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		ctx := t.Context()
		made, err := client.Pods.Create(ctx, p.admin, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
		if err != nil {
			t.Fatal(err)
		}
		made = made.DeepCopy()
		made.Status.Conditions = append(made.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget,
			Status: corev1.ConditionTrue, Reason: "PreemptionByScheduler", Message: "m", LastTransitionTime: metav1.Now()})
		if _, err = client.Pods.UpdateStatus(ctx, p.admin, made); err != nil {
			t.Fatal(err)
		}
		for _, want := range []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse} {
			time.Sleep(70 * time.Second)
			synctest.Wait()
			pod, err := client.Pods.Get(ctx, p.admin, "default", "a")
			if err != nil {
				t.Fatal(err)
			}
			i := len(pod.Status.Conditions) - 1
			if c := pod.Status.Conditions[i]; c.Status != want || (want == corev1.ConditionFalse) != (c.Reason == "") {
				t.Errorf("condition %+v, want it %s", c, want)
			}
		}
	})
}
