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
		if ready, since := controller.Ready(pod); ready {
			status.ReadyReplicas++
			if availableIn(rs, since, now) <= 0 {
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

// availableIn is how long a pod that is ready since then has to stay ready to
// count as available; 0 or less: it does.
func availableIn(rs *appsv1.ReplicaSet, since metav1.Time, now time.Time) time.Duration {
	if rs.Spec.MinReadySeconds == 0 {
		return 0
	}
	if since.IsZero() {
		return time.Duration(rs.Spec.MinReadySeconds) * time.Second
	}
	return since.Add(time.Duration(rs.Spec.MinReadySeconds) * time.Second).Sub(now)
}

// nextAvailable is when the next pod becomes available, 0 when none is due.
func nextAvailable(rs *appsv1.ReplicaSet, active []*corev1.Pod, now time.Time) time.Duration {
	var next time.Duration
	for _, pod := range active {
		ready, since := controller.Ready(pod)
		if !ready {
			continue
		}
		if wait := availableIn(rs, since, now); wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	return next
}

func sameStatus(a, b appsv1.ReplicaSetStatus) bool {
	if len(a.Conditions) == 0 && len(b.Conditions) == 0 {
		a.Conditions, b.Conditions = nil, nil
	}
	return reflect.DeepEqual(a, b)
}
