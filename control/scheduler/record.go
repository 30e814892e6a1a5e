package scheduler

import (
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client/explain"
)

// MaxDecisions bounds the decision records kept, one per pod: the oldest goes
// first. At about 1 KiB each they take 4 MiB.
const MaxDecisions = 4096

// maxScored bounds the nodes whose scores a decision keeps.
const maxScored = 10

// Decision is the record of one attempt to place a pod.
type Decision = explain.Decision

// Scored is one node's score in a Decision.
type Scored = explain.Scored

// Records keeps the last decision about each pod. Its methods may be called from
// any goroutine.
type Records struct {
	mu    sync.Mutex
	byPod map[string]*outcome
	order []string // a ring, next is the oldest
	next  int
}

func newRecords() *Records { return &Records{byPod: map[string]*outcome{}} }

// Of returns the last decision about a pod.
func (r *Records) Of(namespace, name string) (Decision, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.byPod[namespace+"/"+name]
	if !ok {
		return Decision{}, false
	}
	return o.full(), true
}

// put keeps a decision; nobody changes it any more.
func (r *Records) put(o *outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := o.Namespace + "/" + o.Name
	if _, known := r.byPod[key]; !known {
		if len(r.order) < MaxDecisions {
			r.order = append(r.order, key)
		} else {
			delete(r.byPod, r.order[r.next])
			r.order[r.next] = key
			r.next = (r.next + 1) % MaxDecisions
		}
	}
	r.byPod[key] = o
}

// unschedulable is the pod condition that tells of a refusal.
func unschedulable(reason, message string, generation int64) corev1.PodCondition {
	return corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
		Reason: reason, Message: message, ObservedGeneration: generation,
	}
}
