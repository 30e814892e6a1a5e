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
	"github.com/sampan-dev/sampan/client/explain"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/internal/timeline"
)

// writeTimeout bounds each write to the API server.
const writeTimeout = 30 * time.Second

// askTimeout bounds the question what has become of a write.
const askTimeout = 5 * time.Second

// schedule makes one attempt to place a pod.
func (s *Scheduler) schedule(ctx context.Context, w *waiting) {
	r := s.profiles[w.pod.Spec.SchedulerName]
	if w.key == "" {
		w.key = s.cluster.classKey(w.pod)
	}
	if by, why := r.shut(w.pod, s.cluster); why != "" {
		s.park(r, w, by, why)
		return
	}
	if s.gangs != nil && s.gangs.groups[gangOf(w.pod)] != nil {
		s.scheduleGang(ctx, w)
		return
	}
	o := r.decide(w.pod, w.key, s.cluster)
	s.metrics.decided(w.pod, o)
	o.Attempt = w.attempt
	if s.cfg.Timeline != nil {
		s.cfg.Timeline.Mark(o.UID, timeline.Mark{
			Step: timeline.Schedule, Name: "filter and score", Start: o.At, End: o.At.Add(o.Took),
			Detail: fmt.Sprintf("%d of %d nodes fit", o.Nodes-o.Refused()-o.Unseen, o.Nodes),
		})
	}
	if o.Node == "" {
		s.refuse(ctx, r, w, o)
		return
	}
	held, err := s.reserve(r, w, o)
	if err != nil {
		s.metrics.attempted(w.pod, o, attemptError)
		s.log.Warn("pod could not take what it needs", "pod", o.Namespace+"/"+o.Name, "node", o.Node, "error", err)
		s.queue.again(w, time.Now())
		return
	}
	// From here on the node counts as taken, before the API server knows.
	s.cluster.place(w.pod, o.Node)
	s.commit(ctx, w, o, held)
}

// commit binds a pod that has its place, in memory.
func (s *Scheduler) commit(ctx context.Context, w *waiting, o *outcome, held []Reservation) {
	o.Message = "Successfully assigned " + o.Namespace + "/" + o.Name + " to " + o.Node
	s.records.put(o)
	s.renounce(w.pod)
	w.binding = true
	pod := w.pod
	if len(held) > 0 {
		s.prepare(ctx, w, o, held)
		return
	}
	took := newEffort(w)
	s.inTurn(pod.UID, func() {
		err := s.bind(ctx, pod, o)
		s.metrics.bound(pod, o, took, err)
		if err != nil {
			s.mail.post(func() { s.unbound(w, err) })
		}
	})
}

// bind tells the API server where a pod goes.
func (s *Scheduler) bind(ctx context.Context, pod *corev1.Pod, o *outcome) error {
	writing, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	start := time.Now()
	err := s.writeBinding(writing, pod, o.Node)
	s.metrics.point(pointBind, pod, err, start)
	if err != nil && !s.wasBound(ctx, pod, o.Node, err) {
		return err
	}
	if s.cfg.Timeline != nil {
		s.cfg.Timeline.Mark(o.UID, timeline.Mark{
			Step: timeline.Schedule, Name: "bind", Start: start, End: time.Now(), Detail: "to node " + o.Node,
		})
	}
	s.events[pod.Spec.SchedulerName].Event(pod, corev1.EventTypeNormal, "Scheduled", o.Message)
	return nil
}

// writeBinding writes it, or has the extender do it whose business the pod is.
func (s *Scheduler) writeBinding(ctx context.Context, pod *corev1.Pod, node string) error {
	for _, e := range s.cfg.Extenders {
		if e.Binds() && e.Interested(pod) {
			return e.Bind(ctx, pod, node)
		}
	}
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name).Sub("binding")
	_, err := s.cfg.Transport.Create(ctx, at, binding, metav1.CreateOptions{})
	return err
}

// wasBound says whether a binding has happened although it was answered by err, or
// not at all: the answer may have been lost on its way. Who does not ask gives the
// room away twice.
func (s *Scheduler) wasBound(ctx context.Context, pod *corev1.Pod, node string, err error) bool {
	if ctx.Err() != nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		return false // we end, or the server has refused
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	now, err := client.Pods.Get(ctx, s.cfg.Transport, pod.Namespace, pod.Name)
	return err == nil && now.UID == pod.UID && now.Spec.NodeName == node
}

// unbound takes an assumption back whose binding failed.
func (s *Scheduler) unbound(w *waiting, err error) {
	w.binding = false
	if now, still := s.queue.pods[w.pod.UID]; !still || now != w {
		return // bound by another, or gone: the informer has told
	}
	on := ""
	if p, placed := s.cluster.pods[w.pod.UID]; placed {
		on = p.node.host
	}
	s.cluster.lift(w.pod.UID)
	if apierrors.IsNotFound(err) {
		s.queue.drop(w.pod.UID)
	} else {
		s.log.Warn("pod could not be bound", "pod", w.pod.Namespace+"/"+w.pod.Name, "error", err)
		s.queue.again(w, time.Now())
	}
	s.changed(Change{Kind: PodRemoved, Pod: w.pod, On: on})
}

// park lets a pod wait at which to look is no use yet.
func (s *Scheduler) park(r *rules, w *waiting, by, why string) {
	w.attempt--
	s.records.put(&outcome{Decision: Decision{
		Namespace: w.pod.Namespace, Name: w.pod.Name, UID: string(w.pod.UID), At: time.Now(), Attempt: w.attempt,
		Nodes: len(s.cluster.Nodes()), Message: why, Refusals: []explain.Refusal{{Filter: by, Reason: why, Nodes: len(s.cluster.Nodes()), Final: true}},
	}})
	w.refused = []string{by}
	w.heeds, w.own = r.heeds(w.refused)
	s.queue.refuse(w, time.Now())
}

// refuse puts a pod back that fits nowhere, after trying to help it and to make
// room for it.
func (s *Scheduler) refuse(ctx context.Context, r *rules, w *waiting, o *outcome) {
	how := ""
	if o.failed == nil && o.Nodes > 0 {
		how = s.remedy(ctx, r, w.pod)
		if !r.preempting.off {
			began := time.Now()
			if room := s.makeRoom(ctx, r, w, o); o.Nominated != "" {
				how = room // what has been found is all that is told
			} else {
				how = join(how, room)
			}
			s.metrics.madeRoom(w.pod, o.Nominated != "", began)
		}
	}
	s.conclude(ctx, r, w, o, how)
}

// conclude lets a pod wait that fits nowhere, and tells it.
func (s *Scheduler) conclude(ctx context.Context, r *rules, w *waiting, o *outcome, how string) {
	if w.nominee != "" {
		o.Nominated, w.nominee = w.nominee, ""
	}
	o.Message = o.sentence(how)
	s.records.put(o)
	w.refused = append(o.Filters(), o.also...)
	w.heeds, w.own = r.heeds(w.refused)
	if o.failed != nil { // nothing has to change for another attempt
		s.metrics.attempted(w.pod, o, attemptError)
		s.queue.again(w, time.Now())
	} else {
		s.metrics.attempted(w.pod, o, attemptUnschedulable)
		s.queue.refuse(w, time.Now())
	}
	pod := w.pod
	s.inTurn(pod.UID, func() { s.report(ctx, pod, o) })
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// remedy has the filters do what they know to do about a pod that fits nowhere.
func (s *Scheduler) remedy(ctx context.Context, r *rules, pod *corev1.Pod) (text string) {
	for _, f := range r.filters {
		can, ok := f.(Remedy)
		if !ok {
			continue
		}
		do, words := can.Remedy(pod, s.cluster)
		if do == nil {
			continue
		}
		text = join(text, words)
		s.work(func() {
			ctx, cancel := context.WithTimeout(ctx, writeTimeout)
			defer cancel()
			if err := do(ctx, s.cfg.Transport); err != nil {
				s.log.Warn("pod could not be helped", "pod", pod.Namespace+"/"+pod.Name, "filter", f.Name(), "error", err)
			}
		})
	}
	return text
}

// report writes the refusal into the pod's status and as an event.
func (s *Scheduler) report(ctx context.Context, pod *corev1.Pod, d *outcome) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	s.events[pod.Spec.SchedulerName].Event(pod, corev1.EventTypeWarning, "FailedScheduling", d.Message)
	reason := corev1.PodReasonUnschedulable
	if d.failed != nil {
		reason = corev1.PodReasonSchedulerError
	}
	condition := unschedulable(reason, d.Message, pod.Generation)
	var nominated *string
	if d.Nominated != "" && d.Nominated != pod.Status.NominatedNodeName {
		nominated = &d.Nominated
	}
	if d.renounced && pod.Status.NominatedNodeName != "" {
		nominated = new("")
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
	d := &outcome{Decision: Decision{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), At: time.Now(),
		Message: "Scheduling is blocked due to non-empty scheduling gates"}}
	for _, g := range pod.Spec.SchedulingGates {
		d.Gates = append(d.Gates, g.Name)
	}
	s.records.put(d)
	condition := unschedulable(corev1.PodReasonSchedulingGated, d.Message, pod.Generation)
	if told(pod, condition) {
		return
	}
	s.inTurn(pod.UID, func() {
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
	var order []map[string]any // a new condition comes last, else the merge puts it first
	there := false
	for _, known := range pod.Status.Conditions {
		if known.Type == c.Type && known.Status == c.Status {
			c.LastTransitionTime = known.LastTransitionTime
		}
		there = there || known.Type == c.Type
		order = append(order, map[string]any{"type": known.Type})
	}
	if !there {
		order = append(order, map[string]any{"type": c.Type})
	}
	status := map[string]any{"conditions": []corev1.PodCondition{c}, "$setElementOrder/conditions": order}
	if nominated != nil {
		status["nominatedNodeName"] = *nominated
		if *nominated == "" {
			status["nominatedNodeName"] = nil
		}
	}
	return s.writeStatus(ctx, pod, status)
}

// writeStatus merges fields into the status of that very pod.
func (s *Scheduler) writeStatus(ctx context.Context, pod *corev1.Pod, status map[string]any) error {
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return err
	}
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name).Sub("status")
	_, err = client.Pods.Patch(ctx, s.cfg.Transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: raw})
	return err
}
