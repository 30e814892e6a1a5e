package scheduler

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// makeRoom finds whom to evict, notes the node as being freed and begins. The text
// says why nobody is.
func (s *Scheduler) makeRoom(ctx context.Context, r *rules, w *waiting, o *outcome) string {
	if s.leaving(w.pod) {
		return "preemption: not eligible due to a terminating pod on the nominated node."
	}
	p, text := r.preempt(w.pod, w.key, s.cluster, o, s.budgets.List())
	if p == nil {
		return text
	}
	o.Nominated = p.node
	for _, v := range p.victims {
		o.Victims = append(o.Victims, v.Namespace+"/"+v.Name)
	}
	s.nominated(w.pod, p.node)
	pod := w.pod
	s.work(func() { s.evict(ctx, pod, p) })
	return ""
}

// leaving says whether pods are still on their way out that were evicted for this
// one: then no others may be.
func (s *Scheduler) leaving(pod *corev1.Pod) bool {
	node, ok := s.cluster.nodes[pod.Status.NominatedNodeName]
	if pod.Status.NominatedNodeName == "" || !ok {
		return false
	}
	for _, p := range node.Pods {
		if p.DeletionTimestamp != nil && priority(p.Pod) < priority(pod) && preempted(p.Pod) {
			return true
		}
	}
	return false
}

// preempted says whether a pod goes because the scheduler wants it to.
func preempted(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget {
			return c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
		}
	}
	return false
}

// evict deletes the victims of a preemption, each told why.
func (s *Scheduler) evict(ctx context.Context, pod *corev1.Pod, p *preemption) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	for _, v := range p.victims {
		condition := corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
			Message: pod.Spec.SchedulerName + ": preempting to accommodate a higher priority pod", ObservedGeneration: v.Generation,
		}
		if err := s.patchStatus(ctx, v, condition, nil); err != nil && !apierrors.IsNotFound(err) {
			s.log.Warn("victim's status not written", "pod", v.Namespace+"/"+v.Name, "error", err)
		}
		err := client.Pods.Delete(ctx, s.cfg.Transport, v.Namespace, v.Name, metav1.DeleteOptions{
			Preconditions: metav1.NewUIDPreconditions(string(v.UID)),
		})
		if err != nil && !apierrors.IsNotFound(err) {
			s.log.Warn("victim not deleted", "pod", v.Namespace+"/"+v.Name, "error", err)
			continue
		}
		s.events[pod.Spec.SchedulerName].Eventf(v, corev1.EventTypeNormal, "Preempted", "Preempted by pod %s on node %s", pod.UID, p.node)
	}
}
