package scheduler

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client/informer"
)

// ours says whether a pod waits for one of our profiles.
func (s *Scheduler) ours(p *corev1.Pod) bool {
	return s.profiles[p.Spec.SchedulerName] != nil && p.Spec.NodeName == "" && p.DeletionTimestamp == nil && !terminal(p)
}

func terminal(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// podChanged brings a pod's new state into the view or the queue.
func (s *Scheduler) podChanged(e informer.Event[*corev1.Pod]) {
	pod := e.New
	if pod == nil || terminal(pod) {
		s.podGone(e.Object())
		return
	}
	if e.Old != nil && e.Old.UID != pod.UID { // recreated while we did not look
		s.podGone(e.Old)
	}
	if s.gangs != nil && s.gangs.note(pod) {
		defer s.changed(Change{Kind: GroupChanged, Pod: pod})
	}
	if pod.Spec.NodeName != "" {
		s.podPlaced(e.Old, pod)
		return
	}
	if !s.ours(pod) {
		s.settled(pod.UID)
		s.renounce(pod)
		return
	}
	// Another's update may come before ours that tells of the nomination: what has
	// not changed says nothing.
	if now := pod.Status.NominatedNodeName; e.Old == nil || e.Old.Status.NominatedNodeName != now {
		s.nominated(pod, now)
	}
	w := s.queue.put(pod, time.Now())
	switch {
	case w.gated:
		s.holdBack(pod)
	case e.Old != nil && w.parked != nil && !apiequality.Semantic.DeepEqual(e.Old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses):
		c := Change{Kind: PodClaims, Pod: pod}
		if w.heeds&c.Kind != 0 && s.profiles[pod.Spec.SchedulerName].helps(w, c, s.cluster) {
			s.queue.hurry(w, time.Now(), c.event())
		}
	}
}

// podGone forgets a pod that needs nothing any more.
func (s *Scheduler) podGone(pod *corev1.Pod) {
	if s.gangs != nil {
		s.gangs.forget(pod)
	}
	s.settled(pod.UID)
	s.renounce(pod)
	if p, placed := s.cluster.pods[pod.UID]; placed {
		on := p.node.host
		s.cluster.lift(pod.UID)
		s.changed(Change{Kind: PodRemoved, Pod: pod, On: on})
	}
}

// renounce gives up the room that was kept for a pod.
func (s *Scheduler) renounce(pod *corev1.Pod) { s.nominated(pod, "") }

// nominated notes where room is kept for a pod. Others may have what was kept
// elsewhere, but for what the pod takes now itself.
func (s *Scheduler) nominated(pod *corev1.Pod, node string) {
	before := s.cluster.nominate(pod, node)
	if before == "" || before == node {
		return
	}
	if p, placed := s.cluster.pods[pod.UID]; placed && p.node.host == before {
		return
	}
	s.changed(Change{Kind: PodRemoved, Pod: pod, On: before})
}

// podPlaced notes the state of a pod that has a node.
func (s *Scheduler) podPlaced(old, pod *corev1.Pod) {
	s.settled(pod.UID)
	before, known := s.cluster.pods[pod.UID]
	var had Resources
	if known {
		had = before.Requests
	}
	news := s.cluster.place(pod, pod.Spec.NodeName)
	s.renounce(pod)
	switch {
	case old == nil || old.Spec.NodeName == "":
		s.changed(Change{Kind: PodPlaced, Pod: pod, On: pod.Spec.NodeName})
	case !equalLabels(old.Labels, pod.Labels):
		s.changed(Change{Kind: PodPlaced, Pod: pod, On: pod.Spec.NodeName, Was: old})
	}
	if old != nil && old.DeletionTimestamp == nil && pod.DeletionTimestamp != nil {
		s.changed(Change{Kind: PodEnding, Pod: pod, On: pod.Spec.NodeName})
	}
	if now := s.cluster.pods[pod.UID]; known && news && !now.Requests.equal(&had) { // resized in place
		s.changed(Change{Kind: PodRemoved, Pod: pod, On: pod.Spec.NodeName})
	}
}

// settled takes a pod out of the queue that has a node, or is gone.
func (s *Scheduler) settled(uid types.UID) {
	w, ok := s.queue.pods[uid]
	if !ok {
		return
	}
	if w.cancel != nil { // what it holds is given back once the preparation has ended
		w.cancel()
	}
	s.queue.drop(uid)
}

// nodeChanged brings a node's new state into the view.
func (s *Scheduler) nodeChanged(e informer.Event[*corev1.Node]) {
	if e.New == nil {
		s.cluster.removeNode(e.Old.Name)
		s.changed(Change{Kind: NodeRemoved, OldNode: e.Old})
		return
	}
	s.cluster.setNode(e.New)
	kind := NodeAdded
	if e.Old != nil {
		kind = 0
		if !equalLabels(e.Old.Labels, e.New.Labels) {
			kind |= NodeLabels
		}
		if e.Old.Spec.Unschedulable != e.New.Spec.Unschedulable || !apiequality.Semantic.DeepEqual(e.Old.Spec.Taints, e.New.Spec.Taints) {
			kind |= NodeTaints
		}
		if !apiequality.Semantic.DeepEqual(e.Old.Status.Allocatable, e.New.Status.Allocatable) {
			kind |= NodeAllocatable
		}
		if !slices.Equal(e.Old.Status.DeclaredFeatures, e.New.Status.DeclaredFeatures) {
			kind |= NodeFeatures
		}
	}
	if kind != 0 {
		s.changed(Change{Kind: kind, Node: e.New, OldNode: e.Old})
	}
}

func (s *Scheduler) namespaceChanged(e informer.Event[*corev1.Namespace]) {
	if e.New == nil {
		s.cluster.setNamespace(e.Old.Name, nil)
		return
	}
	labels := e.New.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	s.cluster.setNamespace(e.New.Name, labels)
	// Pods in a new one may have been heard of before it.
	if e.Old == nil || !equalLabels(e.Old.Labels, labels) {
		s.changed(Change{Kind: NamespaceLabels})
	}
}

// ownersChanged makes the profiles think again about pods that are spread by what
// selects them.
func (s *Scheduler) ownersChanged() {
	for _, r := range s.profiles {
		r.forgetOwned(s.cluster)
	}
}

// changed gives those pods another chance that a change may let in.
func (s *Scheduler) changed(c Change) {
	s.queue.help(time.Now(), c, func(w *waiting) bool {
		return s.profiles[w.pod.Spec.SchedulerName].helps(w, c, s.cluster)
	})
}
