package deployment

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// noDeadline is how clients say that a deployment never times out.
const noDeadline = 1<<31 - 1

// hasDeadline says whether progress is judged at all.
func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != noDeadline
}

// counted is the status by the numbers, with the Available condition.
func (r *round) counted() appsv1.DeploymentStatus {
	all := r.all()
	available := availableReplicas(all)
	status := appsv1.DeploymentStatus{
		ObservedGeneration:  r.d.Generation,
		Replicas:            actualReplicas(all),
		ReadyReplicas:       sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.ReadyReplicas }),
		AvailableReplicas:   available,
		UnavailableReplicas: max(0, specReplicas(all)-available),
		TerminatingReplicas: terminatingReplicas(all),
		CollisionCount:      r.d.Status.CollisionCount,
		Conditions:          slices.Clone(r.d.Status.Conditions),
	}
	if r.fresh != nil {
		status.UpdatedReplicas = r.fresh.Status.Replicas
	}
	_, unavailable := fenceposts(r.d)
	if available >= *r.d.Spec.Replicas-unavailable {
		setCondition(&status, r.newCondition(appsv1.DeploymentAvailable, corev1.ConditionTrue,
			"MinimumReplicasAvailable", "Deployment has minimum availability."))
	} else {
		setCondition(&status, r.newCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse,
			"MinimumReplicasUnavailable", "Deployment does not have minimum availability."))
	}
	return status
}

// terminatingReplicas is nil while a set that has a status does not say how many
// it has. One that nobody has looked at yet has none.
func terminatingReplicas(sets []*appsv1.ReplicaSet) *int32 {
	var n int32
	for _, rs := range sets {
		switch {
		case rs.Status.TerminatingReplicas != nil:
			n += *rs.Status.TerminatingReplicas
		case rs.Status.ObservedGeneration != 0:
			return nil
		}
	}
	return &n
}

// judgeProgress makes the status of a rollout: counted, and whether it gets on.
func (r *round) judgeProgress() {
	status := r.counted()
	current := conditionOf(&r.d.Status, appsv1.DeploymentProgressing)
	finished := status.Replicas == status.UpdatedReplicas && current != nil && current.Reason == "NewReplicaSetAvailable"
	switch {
	case !hasDeadline(r.d):
		dropCondition(&status, appsv1.DeploymentProgressing)
	case finished: // no rollout is going on: nothing to judge
	case complete(r.d, &status):
		setCondition(&status, r.newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue,
			"NewReplicaSetAvailable", r.subject()+" has successfully progressed."))
	case progressed(&r.was, &status):
		c := r.newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue,
			"ReplicaSetUpdated", r.subject()+" is progressing.")
		if current != nil && current.Status == corev1.ConditionTrue {
			c.LastTransitionTime = current.LastTransitionTime
		}
		dropCondition(&status, appsv1.DeploymentProgressing) // the same reason again, but a later update
		setCondition(&status, c)
	case r.timedOut(current):
		setCondition(&status, r.newCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse,
			"ProgressDeadlineExceeded", r.subject()+" has timed out progressing."))
	}
	if failure := r.replicaFailure(); failure != nil {
		setCondition(&status, *failure)
	} else {
		dropCondition(&status, appsv1.DeploymentReplicaFailure)
	}
	r.d.Status = status
}

// subject is whom the Progressing condition speaks of.
func (r *round) subject() string {
	if r.fresh != nil {
		return fmt.Sprintf("ReplicaSet %q", r.fresh.Name)
	}
	return fmt.Sprintf("Deployment %q", r.d.Name)
}

// complete says whether the rollout has reached its end.
func complete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	want := *d.Spec.Replicas
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want &&
		s.ObservedGeneration >= d.Generation
}

// progressed says whether anything got better.
func progressed(was, is *appsv1.DeploymentStatus) bool {
	return is.UpdatedReplicas > was.UpdatedReplicas ||
		is.Replicas-is.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		is.ReadyReplicas > was.ReadyReplicas ||
		is.AvailableReplicas > was.AvailableReplicas
}

func (r *round) timedOut(current *appsv1.DeploymentCondition) bool {
	switch {
	case current == nil || current.Reason == "NewReplicaSetAvailable":
		return false
	case current.Reason == "ProgressDeadlineExceeded":
		return true
	}
	return current.LastUpdateTime.Add(r.deadline()).Before(r.now.Time)
}

func (r *round) deadline() time.Duration {
	return time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
}

// progressCheck is when a rollout that shows no progress has to be looked at.
func (r *round) progressCheck() time.Duration {
	current := conditionOf(&r.d.Status, appsv1.DeploymentProgressing)
	if !hasDeadline(r.d) || current == nil || r.d.Spec.Paused || complete(r.d, &r.d.Status) ||
		current.Reason == "ProgressDeadlineExceeded" || current.Reason == "NewReplicaSetAvailable" {
		return 0
	}
	// A second more: stored times are cut to seconds.
	return max(time.Second, current.LastUpdateTime.Add(r.deadline()).Sub(r.now.Time)+time.Second)
}

// notePause keeps the clock of a paused deployment from running out.
func (r *round) notePause() {
	current := conditionOf(&r.d.Status, appsv1.DeploymentProgressing)
	if !hasDeadline(r.d) || current != nil && current.Reason == "ProgressDeadlineExceeded" {
		return
	}
	noted := current != nil && current.Reason == "DeploymentPaused"
	switch {
	case r.d.Spec.Paused && !noted:
		r.condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused")
	case !r.d.Spec.Paused && noted:
		r.condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed")
	}
}

// replicaFailure is what keeps a set from making pods; the new set's first, then
// the oldest's.
func (r *round) replicaFailure() *appsv1.DeploymentCondition {
	all := r.sets
	if r.fresh != nil {
		all = slices.Concat([]*appsv1.ReplicaSet{r.fresh}, r.sets)
	}
	for _, rs := range all {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				return &appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastTransitionTime: c.LastTransitionTime, LastUpdateTime: c.LastTransitionTime,
				}
			}
		}
	}
	return nil
}

func (r *round) condition(kind appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) {
	setCondition(&r.d.Status, r.newCondition(kind, status, reason, message))
}

func (r *round) newCondition(kind appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	now := metav1.NewTime(r.now.Truncate(time.Second)) // as it is stored
	return appsv1.DeploymentCondition{
		Type: kind, Status: status, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now,
	}
}

func conditionOf(s *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			c := s.Conditions[i]
			return &c
		}
	}
	return nil
}

// setCondition replaces the condition of c's type unless it says the same; the
// time of transition changes only with the status.
func setCondition(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	if have := conditionOf(s, c.Type); have != nil && have.Status == c.Status {
		if have.Reason == c.Reason {
			return
		}
		c.LastTransitionTime = have.LastTransitionTime
	}
	dropCondition(s, c.Type)
	s.Conditions = append(s.Conditions, c)
}

func dropCondition(s *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(slices.Clone(s.Conditions), func(c appsv1.DeploymentCondition) bool { return c.Type == kind })
}
