// Package roster tells other programs on the node, over a unix socket, which pods it
// has and how they are (k8s.io/kubelet/pkg/apis/pods/v1alpha1, KEP-4188): as the node
// sees them itself, also while the API server can't be reached. It only shows what the
// agent tells it.
package roster

import (
	"cmp"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podsv1alpha1 "k8s.io/kubelet/pkg/apis/pods/v1alpha1"

	"github.com/sampan-dev/sampan/node/agent/tally"
)

// maxBacklog is how many events a watcher may fall behind, as upstream's; after that it
// is let go and must list again.
const maxBacklog = 100

// Roster is what is known of the node's pods, by those who own them. Its methods may be
// called concurrently, and do nothing when it is nil.
type Roster struct {
	counts *tally.Tally

	mu       sync.Mutex
	complete bool
	pods     map[types.UID]*corev1.Pod
	watchers map[chan *podsv1alpha1.WatchPodsEvent]bool
}

// New makes one that knows no pods yet; counts may be nil.
func New(counts *tally.Tally) *Roster {
	return &Roster{counts: counts, pods: map[types.UID]*corev1.Pod{}, watchers: map[chan *podsv1alpha1.WatchPodsEvent]bool{}}
}

// Complete says that everybody who wants pods of the node has been heard: until then
// nothing is answered.
func (r *Roster) Complete() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.complete = true
}

// Begin tells of a pod before anybody has looked how it is: as the API has it, but that
// it is ready nobody could say yet.
func (r *Roster) Begin(pod *corev1.Pod) {
	if r == nil {
		return
	}
	status := *pod.Status.DeepCopy()
	if status.Phase == "" {
		status.Phase = corev1.PodPending
	}
	for i := range status.Conditions {
		if c := &status.Conditions[i]; c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			c.Status, c.Reason, c.Message = corev1.ConditionFalse, "ContainersNotReady", "Kubelet is initializing pod containers"
		}
	}
	r.Update(pod, &status)
}

// Update tells of a pod and its status. What has not changed is told to nobody.
func (r *Roster) Update(pod *corev1.Pod, status *corev1.PodStatus) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.pods[pod.UID]
	if old != nil && old.Generation == pod.Generation && old.ResourceVersion == pod.ResourceVersion && equality.Semantic.DeepEqual(old.Status, *status) {
		return
	}
	now := *pod
	now.Status = *status
	r.pods[pod.UID] = &now
	kind := podsv1alpha1.EventType_MODIFIED
	if old == nil {
		kind = podsv1alpha1.EventType_ADDED
	}
	r.tell(kind, &now)
}

// Remove tells that a pod is gone from the node, if it was known.
func (r *Roster) Remove(uid types.UID) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.pods[uid]
	if old == nil {
		return
	}
	delete(r.pods, uid)
	// All that watchers may rely on, as upstream.
	r.tell(podsv1alpha1.EventType_DELETED, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: old.Name, Namespace: old.Namespace, UID: old.UID}})
}

// tell hands an event to all who watch. The caller holds the lock.
func (r *Roster) tell(kind podsv1alpha1.EventType, pod *corev1.Pod) {
	if len(r.watchers) == 0 {
		return
	}
	data, err := pod.Marshal()
	if err != nil {
		r.counts.WatchDropped() // it came from such bytes, so this does not happen
		return
	}
	event := &podsv1alpha1.WatchPodsEvent{Type: kind, Pod: data}
	for w := range r.watchers {
		select {
		case w <- event:
		default:
			r.counts.WatchDropped()
			delete(r.watchers, w)
			close(w)
		}
	}
}

// list are the pods, by UID; ok is false as long as they are not complete.
func (r *Roster) list() (pods []*corev1.Pod, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sorted(), r.complete
}

// watch is list, and what changes after it until stop is called. The channel is closed
// when the watcher is too slow.
func (r *Roster) watch() (pods []*corev1.Pod, events <-chan *podsv1alpha1.WatchPodsEvent, stop func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.complete {
		return nil, nil, nil, false
	}
	w := make(chan *podsv1alpha1.WatchPodsEvent, maxBacklog)
	r.watchers[w] = true
	return r.sorted(), w, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, w)
	}, true
}

func (r *Roster) get(uid types.UID) (pod *corev1.Pod, complete bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pods[uid], r.complete
}

func (r *Roster) sorted() []*corev1.Pod {
	pods := make([]*corev1.Pod, 0, len(r.pods))
	for _, p := range r.pods {
		pods = append(pods, p)
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.UID, b.UID) })
	return pods
}
