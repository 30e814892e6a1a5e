package disruption

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/control/controller"
)

// verdict is what is true of a budget.
type verdict struct {
	status policyv1.PodDisruptionBudgetStatus
	// survivors were evicted and are not going.
	survivors []*corev1.Pod
	// again is when the next eviction runs out of time; 0: none is pending.
	again time.Duration
}

// byScale says that what a budget asks for depends on what the owners of its pods
// want, not on the pods that are there.
func byScale(b *policyv1.PodDisruptionBudget) bool {
	return b.Spec.MaxUnavailable != nil || b.Spec.MinAvailable != nil && b.Spec.MinAvailable.Type == intstr.String
}

// judge is pure: the status of budget with these pods, of which there should be
// expected.
func judge(budget *policyv1.PodDisruptionBudget, pods []*corev1.Pod, expected int32, now time.Time) (verdict, error) {
	desired, expected, err := needed(budget, expected)
	if err != nil {
		return verdict{}, err
	}
	v := verdict{}
	pending := map[string]metav1.Time{}
	healthy := int32(0)
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		at, evicted := budget.Status.DisruptedPods[pod.Name]
		if left := at.Add(patience).Sub(now); evicted && left >= 0 {
			pending[pod.Name] = at
			v.again = controller.Sooner(v.again, max(left, time.Millisecond))
			if left > 0 {
				continue
			}
		} else if evicted {
			v.survivors = append(v.survivors, pod)
		}
		if ready, _ := controller.Ready(pod); ready {
			healthy++
		}
	}
	v.status = policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: budget.Generation, DisruptedPods: pending,
		CurrentHealthy: healthy, DesiredHealthy: desired, ExpectedPods: expected,
		Conditions: budget.DeepCopy().Status.Conditions,
	}
	// A budget without pods is safe until its controller has seen the first ones.
	if expected > 0 {
		v.status.DisruptionsAllowed = max(0, healthy-desired)
	}
	condition := metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason,
		ObservedGeneration: budget.Generation, LastTransitionTime: metav1.NewTime(now),
	}
	if v.status.DisruptionsAllowed > 0 {
		condition.Status, condition.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
	}
	meta.SetStatusCondition(&v.status.Conditions, condition)
	return v, nil
}

// needed is how many pods must be healthy, and of how many. A budget that asks
// for nothing expects nothing, and so allows nothing.
func needed(b *policyv1.PodDisruptionBudget, expected int32) (desired, of int32, err error) {
	switch {
	case b.Spec.MaxUnavailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, int(expected), true)
		if err != nil {
			return 0, 0, fmt.Errorf("read maxUnavailable: %w", err)
		}
		return max(0, expected-int32(n)), expected, nil
	case b.Spec.MinAvailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MinAvailable, int(expected), true)
		if err != nil {
			return 0, 0, fmt.Errorf("read minAvailable: %w", err)
		}
		return int32(n), expected, nil
	}
	return 0, 0, nil
}

// failed is the status when something could not be found out: nothing may be
// disrupted. The rest stays as it was, observedGeneration too.
func failed(budget *policyv1.PodDisruptionBudget, err error, now time.Time) policyv1.PodDisruptionBudgetStatus {
	next := *budget.Status.DeepCopy()
	next.DisruptionsAllowed = 0
	meta.SetStatusCondition(&next.Conditions, metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason,
		Message: err.Error(), ObservedGeneration: next.ObservedGeneration, LastTransitionTime: metav1.NewTime(now),
	})
	return next
}

// same says whether two statuses say the same.
func same(a, b *policyv1.PodDisruptionBudgetStatus) bool {
	return equality.Semantic.DeepEqual(a, b)
}
