package replicaset

import (
	"reflect"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/control/controller"
)

// statusOf is what the set's status should say; failure is why the plan could
// not be carried out, or nil.
func statusOf(rs *appsv1.ReplicaSet, active, terminating []*corev1.Pod, failure error, now time.Time) appsv1.ReplicaSetStatus {
	leaving := int32(len(terminating))
	status := appsv1.ReplicaSetStatus{
		Replicas:            int32(len(active)),
		TerminatingReplicas: &leaving,
		ObservedGeneration:  rs.Generation,
		Conditions:          conditions(rs, len(active), failure, now),
	}
	template := labels.Set(rs.Spec.Template.Labels).AsSelectorPreValidated()
	for _, pod := range active {
		if template.Matches(labels.Set(pod.Labels)) {
			status.FullyLabeledReplicas++
		}
		if wait, ready := controller.AvailableIn(pod, rs.Spec.MinReadySeconds, now); ready {
			status.ReadyReplicas++
			if wait == 0 {
				status.AvailableReplicas++
			}
		}
	}
	return status
}

// conditions keeps the first ReplicaFailure until a round succeeds.
func conditions(rs *appsv1.ReplicaSet, have int, failure error, now time.Time) []appsv1.ReplicaSetCondition {
	isFailure := func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure }
	known := slices.ContainsFunc(rs.Status.Conditions, isFailure)
	switch {
	case failure == nil && known:
		return slices.DeleteFunc(slices.Clone(rs.Status.Conditions), isFailure)
	case failure == nil || known:
		return rs.Status.Conditions
	}
	reason := "FailedCreate"
	if have > int(*rs.Spec.Replicas) {
		reason = "FailedDelete"
	}
	return append(slices.Clone(rs.Status.Conditions), appsv1.ReplicaSetCondition{
		Type:               appsv1.ReplicaSetReplicaFailure,
		Status:             corev1.ConditionTrue,
		Reason:             reason,
		Message:            failure.Error(),
		LastTransitionTime: metav1.NewTime(now),
	})
}

func sameStatus(a, b appsv1.ReplicaSetStatus) bool {
	if len(a.Conditions) == 0 && len(b.Conditions) == 0 {
		a.Conditions, b.Conditions = nil, nil
	}
	return reflect.DeepEqual(a, b)
}
