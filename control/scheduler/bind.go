package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/internal/timeline"
)

// writeTimeout bounds each write to the API server.
const writeTimeout = 30 * time.Second

// schedule makes one attempt to place a pod.
func (s *Scheduler) schedule(ctx context.Context, w *waiting) {
	d := s.rules.decide(w.pod, s.cluster)
	d.Attempt = w.attempt
	s.cfg.Timeline.Mark(d.UID, timeline.Mark{
		Step: timeline.Schedule, Name: "filter and score", Start: d.At, End: d.At.Add(d.Took),
		Detail: fmt.Sprintf("%d of %d nodes fit", d.Nodes-d.Refused(), d.Nodes),
	})
	if d.Node == "" {
		s.refuse(ctx, w, d)
		return
	}
	d.Message = fmt.Sprintf("Successfully assigned %s/%s to %s", d.Namespace, d.Name, d.Node)
	s.records.put(d)
	// From here on the node counts as taken, before the API server knows.
	assumed := w.pod.DeepCopy()
	assumed.Spec.NodeName = d.Node
	s.cluster.place(assumed, d.Node)
	w.binding = true
	s.work(func() { s.bind(ctx, w, d) })
}

// work runs a write beside the loop; the loop waits when too many are under way.
func (s *Scheduler) work(do func()) {
	s.slots <- struct{}{}
	go func() {
		defer func() { <-s.slots }()
		do()
	}()
}

// bind tells the API server where a pod goes.
func (s *Scheduler) bind(ctx context.Context, w *waiting, d Decision) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	start := time.Now()
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name, UID: w.pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: d.Node},
	}
	at := target.Of(client.Pods.GroupVersionResource, d.Namespace).Object(d.Name).Sub("binding")
	_, err := s.cfg.Transport.Create(ctx, at, binding, metav1.CreateOptions{})
	if err == nil {
		s.cfg.Timeline.Mark(d.UID, timeline.Mark{
			Step: timeline.Schedule, Name: "bind", Start: start, End: time.Now(), Detail: "to node " + d.Node,
		})
		s.events.Event(w.pod, corev1.EventTypeNormal, "Scheduled", d.Message)
		return
	}
	s.mail.post(func() { s.unbound(w, err) })
}

// unbound takes an assumption back whose binding failed.
func (s *Scheduler) unbound(w *waiting, err error) {
	w.binding = false
	if _, still := s.queue.pods[w.pod.UID]; !still {
		return // bound by another, or gone: the informer has told
	}
	s.cluster.lift(w.pod.UID)
	if apierrors.IsNotFound(err) {
		s.queue.drop(w.pod.UID)
		return
	}
	s.log.Warn("pod could not be bound", "pod", w.pod.Namespace+"/"+w.pod.Name, "error", err)
	s.queue.again(w, time.Now())
	s.changed(Change{Kind: PodRemoved, Pod: w.pod})
}

// refuse puts a pod back that fits nowhere, after trying to make room for it.
func (s *Scheduler) refuse(ctx context.Context, w *waiting, d Decision) {
	how := ""
	if d.Nodes > 0 && s.mayPreempt(w.pod) {
		var p *preemption
		if p, how = s.makeRoom(w.pod, &d); p != nil {
			s.work(func() { s.evict(ctx, w.pod, p) })
		}
	}
	d.Message = d.Sentence(how)
	s.records.put(d)
	w.refused = d.Filters()
	s.queue.refuse(w, time.Now())
	s.work(func() { s.report(ctx, w.pod, d) })
}

// mayPreempt says whether a pod may have others evicted: not while those it had
// evicted before are still on their way out.
func (s *Scheduler) mayPreempt(pod *corev1.Pod) bool {
	node, ok := s.cluster.nodes[pod.Status.NominatedNodeName]
	if pod.Status.NominatedNodeName == "" || !ok {
		return true
	}
	for _, p := range node.Pods {
		if p.DeletionTimestamp != nil && priority(p.Pod) < priority(pod) {
			return false
		}
	}
	return true
}

// makeRoom finds whom to evict and notes the node as being freed.
func (s *Scheduler) makeRoom(pod *corev1.Pod, d *Decision) (*preemption, string) {
	p, text := s.rules.preempt(pod, s.cluster, d, s.budgets.List())
	if p == nil {
		return nil, text
	}
	d.Nominated = p.node
	for _, v := range p.victims {
		d.Victims = append(d.Victims, v.Namespace+"/"+v.Name)
	}
	s.cluster.nominate(pod, p.node)
	return p, ""
}

// evict deletes the victims of a preemption, each told why.
func (s *Scheduler) evict(ctx context.Context, pod *corev1.Pod, p *preemption) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	for _, v := range p.victims {
		condition := corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
			Message: s.cfg.Name + ": preempting to accommodate a higher priority pod", ObservedGeneration: v.Generation,
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
		s.events.Eventf(v, corev1.EventTypeNormal, "Preempted", "Preempted by pod %s on node %s", pod.UID, p.node)
	}
}

// report writes the refusal into the pod's status and as an event.
func (s *Scheduler) report(ctx context.Context, pod *corev1.Pod, d Decision) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	s.events.Event(pod, corev1.EventTypeWarning, "FailedScheduling", d.Message)
	condition := unschedulable(corev1.PodReasonUnschedulable, d.Message, pod.Generation)
	var nominated *string
	if d.Nominated != "" && d.Nominated != pod.Status.NominatedNodeName {
		nominated = &d.Nominated
	}
	if nominated == nil && told(pod, condition) {
		return
	}
	if err := s.patchStatus(ctx, pod, condition, nominated); err != nil && !apierrors.IsNotFound(err) {
		s.log.Warn("pod's status not written", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}

// holdBack says in a gated pod's status that its gates are why nothing happens.
func (s *Scheduler) holdBack(pod *corev1.Pod) {
	d := Decision{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), At: time.Now(),
		Message: "Scheduling is blocked due to non-empty scheduling gates"}
	for _, g := range pod.Spec.SchedulingGates {
		d.Gates = append(d.Gates, g.Name)
	}
	s.records.put(d)
	condition := unschedulable(corev1.PodReasonSchedulingGated, d.Message, pod.Generation)
	if told(pod, condition) {
		return
	}
	s.work(func() {
		ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
		defer cancel()
		if err := s.patchStatus(ctx, pod, condition, nil); err != nil && !apierrors.IsNotFound(err) {
			s.log.Warn("pod's status not written", "pod", pod.Namespace+"/"+pod.Name, "error", err)
		}
	})
}

// told says whether the pod's status has the condition already.
func told(pod *corev1.Pod, want corev1.PodCondition) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == want.Type {
			return c.Status == want.Status && c.Reason == want.Reason && c.Message == want.Message
		}
	}
	return false
}

// patchStatus sets one condition, and the nominated node when it is given.
func (s *Scheduler) patchStatus(ctx context.Context, pod *corev1.Pod, c corev1.PodCondition, nominated *string) error {
	c.LastTransitionTime = metav1.Now()
	for _, known := range pod.Status.Conditions {
		if known.Type == c.Type && known.Status == c.Status {
			c.LastTransitionTime = known.LastTransitionTime
		}
	}
	status := map[string]any{"conditions": []corev1.PodCondition{c}}
	if nominated != nil {
		status["nominatedNodeName"] = *nominated
	}
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return err
	}
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name).Sub("status")
	_, err = client.Pods.Patch(ctx, s.cfg.Transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: raw})
	return err
}
