package scheduler

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// makeRoom finds whom to evict, notes the node as being freed and begins. The text
// says how it went.
func (s *Scheduler) makeRoom(ctx context.Context, r *rules, w *waiting, o *outcome) string {
	if (w.pod.Spec.PreemptionPolicy == nil || *w.pod.Spec.PreemptionPolicy != corev1.PreemptNever) && s.leaving(r, w) {
		return "preemption: not eligible due to a terminating pod on the nominated node."
	}
	p, text := r.preempt(w.pod, w.key, s.cluster, o, s.budgets.List())
	s.metrics.preempted(p)
	if p == nil {
		// Nothing will be freed: what was kept for the pod is others' again.
		o.renounced = w.pod.Spec.PreemptionPolicy == nil || *w.pod.Spec.PreemptionPolicy != corev1.PreemptNever
		if o.renounced {
			s.renounce(w.pod)
		}
		return text
	}
	o.Nominated = p.node
	for _, v := range p.victims {
		o.Victims = append(o.Victims, v.Namespace+"/"+v.Name)
	}
	s.outrank(ctx, w.pod, p.node)
	s.nominated(w.pod, p.node)
	pod := w.pod
	s.work(func() {
		if !s.evict(ctx, pod, p) {
			s.mail.post(func() { s.retry(w) })
		}
	})
	return text
}

// retry is for a pod whose victims could not all be told to go: no event will come
// that wakes it.
func (s *Scheduler) retry(w *waiting) {
	if now, still := s.queue.pods[w.pod.UID]; still && now == w && w.parked != nil {
		s.queue.again(w, time.Now())
	}
}

// outrank takes the node from less important pods for which it was being freed:
// they look for another at once.
func (s *Scheduler) outrank(ctx context.Context, pod *corev1.Pod, node string) {
	for _, other := range slices.Clone(s.cluster.nominated[node]) {
		if priority(other) >= priority(pod) {
			continue
		}
		s.cluster.nominate(other, "")
		if w, waits := s.queue.pods[other.UID]; waits && !w.binding {
			s.queue.activate(w, forced)
		}
		s.inTurn(other.UID, func() { s.unnominate(ctx, other) })
	}
}

// unnominate takes the nomination out of a pod's status.
func (s *Scheduler) unnominate(ctx context.Context, pod *corev1.Pod) {
	if pod.Status.NominatedNodeName == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := s.writeStatus(ctx, pod, map[string]any{"nominatedNodeName": nil}); err != nil && !apierrors.IsNotFound(err) {
		s.log.Warn("pod's nomination not withdrawn", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}

// leaving says whether pods are still on their way out that were evicted for this
// one: then no others may be, unless it could not be on that node any more anyway.
func (s *Scheduler) leaving(r *rules, w *waiting) bool {
	node := s.cluster.Node(w.pod.Status.NominatedNodeName)
	if node == nil {
		return false
	}
	k := r.class(w.pod, w.key, s.cluster)
	if at := k.check(node, r.prepareOwn(w.pod, k, s.cluster)); k.verdicts[at].why.Final {
		return false
	}
	for _, p := range node.Pods {
		if p.DeletionTimestamp != nil && priority(p.Pod) < priority(w.pod) && preempted(p.Pod) {
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

// evict deletes the victims of a preemption, each told why. It says whether all are
// on their way.
func (s *Scheduler) evict(ctx context.Context, pod *corev1.Pod, p *preemption) (all bool) {
	all = true
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	kind, uid := "pod", pod.UID
	if p.group != "" {
		kind, uid = "podgroup", p.group
	}
	for _, v := range p.victims {
		condition := corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
			Message: pod.Spec.SchedulerName + ": preempting to accommodate a higher priority " + kind, ObservedGeneration: v.Generation,
		}
		if err := s.patchStatus(ctx, v, condition, nil); err != nil && !apierrors.IsNotFound(err) {
			s.log.Warn("victim's status not written", "pod", v.Namespace+"/"+v.Name, "error", err)
		}
		err := client.Pods.Delete(ctx, s.cfg.Transport, v.Namespace, v.Name, metav1.DeleteOptions{
			Preconditions: metav1.NewUIDPreconditions(string(v.UID)),
		})
		if err != nil && !apierrors.IsNotFound(err) {
			s.log.Warn("victim not deleted", "pod", v.Namespace+"/"+v.Name, "error", err)
			all = false
			continue
		}
		s.events[pod.Spec.SchedulerName].Eventf(v, corev1.EventTypeNormal, "Preempted", "Preempted by %s %s on node %s", kind, uid, p.node)
	}
	return all
}
