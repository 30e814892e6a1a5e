package scheduler

import (
	"container/heap"
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/backoff"
)

// Delays of pods that did not fit; upstream's defaults.
const (
	backoffMin = time.Second
	backoffMax = 10 * time.Second
	// maxUnschedulable is after what time a pod is tried again though nothing
	// happened that should help it: an insurance against a missed event.
	maxUnschedulable = 5 * time.Minute
)

// waiting is a pod that has no node.
type waiting struct {
	pod   *corev1.Pod
	key   string // of its class
	since time.Time
	// entered is when it was looked at first, or could have been; since may be
	// earlier if it was gated.
	entered time.Time
	attempt int
	// refused are the filters that said no the last time; heeds are the changes
	// that they may take notice of, own says that some look at what the pod names.
	refused []string
	heeds   ChangeKind
	own     bool
	// gated: scheduling gates keep it from being looked at.
	gated bool
	// binding: it has been placed, and the API server is being told.
	binding bool
	// nominee is the node that its gang's preemption frees for it, until it is told.
	nominee string
	// cancel ends the preparation of the binding; nil when there is none.
	cancel context.CancelFunc
	// ready is when it is tried again, unless it is active.
	ready time.Time
	at    int // position in its heap, -1 in none
	heap  *podHeap
	// parked: it waits for a change, in the room of its class.
	parked *room
}

// room is where refused pods wait that are alike: what helps one helps all.
type room struct {
	key   roomKey
	pods  map[types.UID]*waiting
	heeds ChangeKind
}

// roomKey is one for pods about which no filter can think differently.
type roomKey struct {
	class, refused string
	priority       int32
	own            types.UID
}

// queue holds the pods without a node: active ones ordered by priority and age;
// eager ones that something may have helped, which are tried after their back-off,
// or when there is nothing else to do; failed ones that must wait theirs out; and
// those that wait for a change. One goroutine owns it.
type queue struct {
	pods   map[types.UID]*waiting
	active podHeap
	// eager, failed and parked are ordered by when they are tried again.
	eager, failed, parked podHeap
	rooms                 map[roomKey]*room
	// byHeeds are the rooms by what they take notice of.
	byHeeds map[ChangeKind]map[*room]bool
	retry   backoff.Policy
	// incoming is told of every pod that comes into a part of the queue, and why;
	// both in upstream's words.
	incoming func(queue, event string)
}

func newQueue(least, most time.Duration) *queue {
	q := &queue{
		pods: map[types.UID]*waiting{}, rooms: map[roomKey]*room{}, byHeeds: map[ChangeKind]map[*room]bool{}, retry: backoff.Policy{Min: least, Max: most},
		incoming: func(string, string) {},
	}
	q.active.less = func(a, b *waiting) bool {
		if pa, pb := priority(a.pod), priority(b.pod); pa != pb {
			return pa > pb
		}
		return older(a, b)
	}
	for _, h := range q.sleeping() {
		h.less = func(a, b *waiting) bool {
			if !a.ready.Equal(b.ready) {
				return a.ready.Before(b.ready)
			}
			return older(a, b)
		}
	}
	return q
}

func (q *queue) sleeping() [3]*podHeap { return [...]*podHeap{&q.eager, &q.failed, &q.parked} }

// older is the order of pods that are equally important: by age, and of those that
// came at one moment by name.
func older(a, b *waiting) bool {
	if !a.since.Equal(b.since) {
		return a.since.Before(b.since)
	}
	return a.pod.Namespace < b.pod.Namespace || a.pod.Namespace == b.pod.Namespace && a.pod.Name < b.pod.Name
}

// put takes in a new pod, or the new state of a known one. A changed spec is a
// reason to try again.
func (q *queue) put(pod *corev1.Pod, now time.Time) *waiting {
	w, known := q.pods[pod.UID]
	if !known {
		w = &waiting{since: now, at: -1}
		q.pods[pod.UID] = w
	}
	changed := !known || w.pod.Generation != pod.Generation || len(w.pod.Spec.SchedulingGates) != len(pod.Spec.SchedulingGates) ||
		!equalLabels(w.pod.Labels, pod.Labels)
	if changed {
		w.key = ""
	}
	was := w.gated
	w.pod = pod
	w.gated = len(pod.Spec.SchedulingGates) > 0
	switch {
	case w.gated:
		if !known {
			q.incoming(gatedQueue, podAdded)
		}
		q.leave(w)
	case changed && !w.binding:
		event := podUpdated
		if !known {
			event = podAdded
		} else if was {
			event = gatesGone
		}
		q.activate(w, event)
	}
	return w
}

// drop forgets a pod that has a node or is gone.
func (q *queue) drop(uid types.UID) {
	if w, ok := q.pods[uid]; ok {
		q.leave(w)
		delete(q.pods, uid)
	}
}

// pop takes the most important active pod, or, when there is none, the eager one
// whose back-off ends first; it stays known.
func (q *queue) pop() *waiting {
	from := &q.active
	if from.Len() == 0 {
		from = &q.eager
	}
	if from.Len() == 0 {
		return nil
	}
	w := heap.Pop(from).(*waiting)
	if from == &q.eager {
		q.incoming(activeQueue, early)
	}
	w.heap = nil
	w.attempt++
	return w
}

// refuse puts a pod back that did not fit: it waits for a change that can help.
func (q *queue) refuse(w *waiting, now time.Time) {
	q.delay(w, &q.parked, now.Add(maxUnschedulable))
	if w.heap == nil {
		return
	}
	q.incoming(unschedulableQueue, attemptFailed)
	key := roomKey{class: w.key, refused: strings.Join(w.refused, ","), priority: priority(w.pod)}
	if w.own {
		key.own = w.pod.UID
	}
	r, ok := q.rooms[key]
	if !ok {
		r = &room{key: key, pods: map[types.UID]*waiting{}, heeds: w.heeds}
		q.rooms[key] = r
		if q.byHeeds[r.heeds] == nil {
			q.byHeeds[r.heeds] = map[*room]bool{}
		}
		q.byHeeds[r.heeds][r] = true
	}
	r.pods[w.pod.UID] = w
	w.parked = r
}

// again puts a pod back for which something failed that is not its fault.
func (q *queue) again(w *waiting, now time.Time) {
	if q.delay(w, &q.failed, now.Add(q.retry.After(w.attempt))); w.heap != nil {
		q.incoming(backoffQueue, attemptFailed)
	}
}

// hurry puts a pod back that something may have helped.
func (q *queue) hurry(w *waiting, now time.Time, event string) {
	if q.delay(w, &q.eager, now.Add(q.retry.After(w.attempt))); w.heap != nil {
		q.incoming(backoffQueue, event)
	}
}

// help moves the pods that a change may let in out of the waiting room, into their
// back-off; may says whether it can, and is asked once for pods that are alike.
func (q *queue) help(now time.Time, c Change, may func(*waiting) bool) {
	for heeds, rooms := range q.byHeeds {
		if heeds&c.Kind == 0 {
			continue
		}
		for r := range rooms {
			q.open(r, now, c, may)
		}
	}
}

func (q *queue) open(r *room, now time.Time, c Change, may func(*waiting) bool) {
	var one *waiting
	for _, w := range r.pods {
		one = w
		break
	}
	if one == nil || !may(one) {
		return
	}
	event := c.event()
	for _, w := range r.pods {
		q.hurry(w, now, event)
	}
}

// wake activates every pod whose time has come and returns when the next will.
func (q *queue) wake(now time.Time) (next time.Time, ok bool) {
	for _, h := range q.sleeping() {
		event := backoffOver
		if h == &q.parked {
			event = waitOver
		}
		for h.Len() > 0 && !h.items[0].ready.After(now) {
			q.activate(h.items[0], event)
		}
		if h.Len() > 0 && (!ok || h.items[0].ready.Before(next)) {
			next, ok = h.items[0].ready, true
		}
	}
	return next, ok
}

func (q *queue) activate(w *waiting, event string) {
	q.leave(w)
	if w.entered.IsZero() {
		w.entered = time.Now()
	}
	w.heap = &q.active
	heap.Push(w.heap, w)
	q.incoming(activeQueue, event)
}

func (q *queue) delay(w *waiting, h *podHeap, until time.Time) {
	q.leave(w)
	if now, known := q.pods[w.pod.UID]; !known || now != w {
		return
	}
	w.ready = until
	w.heap = h
	heap.Push(w.heap, w)
}

func (q *queue) leave(w *waiting) {
	if w.heap != nil && w.at >= 0 {
		heap.Remove(w.heap, w.at)
	}
	w.heap = nil
	if r := w.parked; r != nil {
		w.parked = nil
		if delete(r.pods, w.pod.UID); len(r.pods) == 0 {
			delete(q.rooms, r.key)
			if delete(q.byHeeds[r.heeds], r); len(q.byHeeds[r.heeds]) == 0 {
				delete(q.byHeeds, r.heeds)
			}
		}
	}
}

func equalLabels(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// podHeap is a heap whose items know where they are.
type podHeap struct {
	items []*waiting
	less  func(a, b *waiting) bool
}

// Len implements heap.Interface.
func (h *podHeap) Len() int { return len(h.items) }

// Less implements heap.Interface.
func (h *podHeap) Less(i, j int) bool { return h.less(h.items[i], h.items[j]) }

// Swap implements heap.Interface.
func (h *podHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	h.items[i].at, h.items[j].at = i, j
}

// Push implements heap.Interface.
func (h *podHeap) Push(x any) {
	w := x.(*waiting)
	w.at = len(h.items)
	h.items = append(h.items, w)
}

// Pop implements heap.Interface.
func (h *podHeap) Pop() any {
	last := len(h.items) - 1
	w := h.items[last]
	h.items[last] = nil
	h.items = h.items[:last]
	w.at = -1
	return w
}
