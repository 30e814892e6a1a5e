package scheduler

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// muster counts how far a group has come.
type muster struct{ need, scheduled, remaining int }

// musterOf is the count before anybody is tried. Of a group that is no gang one pod
// is enough.
func (s *Scheduler) musterOf(key string, waiting int) muster {
	m := muster{need: max(1, least(s.gangs.groups[key])), remaining: waiting}
	for uid := range s.gangs.members[key] {
		if _, on := s.cluster.pods[uid]; on {
			m.scheduled++
		}
	}
	return m
}

// tried counts one that has been tried.
func (m *muster) tried(placed bool) {
	m.remaining--
	if placed {
		m.scheduled++
	}
}

// lost says that they cannot be enough any more.
func (m *muster) lost() bool { return m.scheduled+m.remaining < m.need }

// String is upstream's sentence about a group that stays too small.
func (m *muster) String() string {
	return fmt.Sprintf("minCount (%d) cannot be satisfied: %d scheduled, %d remaining", m.need, m.scheduled, m.remaining)
}

// trial is what came of trying a group's pods, in its order: placed and left were
// tried, untried not, because it was lost before.
type trial struct {
	line, placed, left, untried []*tryout
	count                       muster
}

// unlike is why pods cannot be of one group: it has one scheduler, one priority and
// one way to deal with others.
func (s *Scheduler) unlike(group *schedulingv1beta1.PodGroup, line []*tryout) error {
	var rank int32
	if group.Spec.Priority != nil {
		rank = *group.Spec.Priority
	}
	var pods []*corev1.Pod
	for _, t := range line {
		pods = append(pods, t.w.pod)
	}
	for uid := range s.gangs.members[group.Namespace+"/"+group.Name] {
		if p, on := s.cluster.pods[uid]; on {
			pods = append(pods, p.Pod)
		}
	}
	for _, p := range pods {
		switch first := pods[0]; {
		case p.Spec.SchedulerName != first.Spec.SchedulerName:
			return fmt.Errorf("all pods in a single pod group should have the same .spec.schedulerName set, got: %q and %q", p.Spec.SchedulerName, first.Spec.SchedulerName)
		case priority(p) != rank:
			return fmt.Errorf("all pods in a single pod group should have the same priority as the pod group's priority, got %d and %d", priority(p), rank)
		case policyOf(p) != policyOf(first):
			return fmt.Errorf("all pods in a single pod group should have the same preemption policy, got %v and %v", policyOf(p), policyOf(first))
		}
	}
	return nil
}

// policyOf says whether a pod may evict others.
func policyOf(pod *corev1.Pod) corev1.PreemptionPolicy {
	if pod.Spec.PreemptionPolicy == nil {
		return corev1.PreemptLowerPriority
	}
	return *pod.Spec.PreemptionPolicy
}

// reject sends all back with what is wrong with their group.
func (s *Scheduler) reject(ctx context.Context, group *schedulingv1beta1.PodGroup, line []*tryout, err error) {
	for _, t := range line {
		t.o = &outcome{failed: err, Decision: Decision{
			Namespace: t.w.pod.Namespace, Name: t.w.pod.Name, UID: string(t.w.pod.UID), At: time.Now(), Attempt: t.w.attempt, Nodes: len(s.cluster.Nodes()),
		}}
		s.conclude(ctx, t.r, t.w, t.o, "")
	}
	s.tellGroup(ctx, group, metav1.Condition{Status: metav1.ConditionFalse, Reason: schedulingv1beta1.PodGroupReasonSchedulerError, Message: err.Error()})
}
