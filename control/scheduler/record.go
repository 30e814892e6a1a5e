package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// MaxDecisions bounds the decision records kept, one per pod: the oldest goes
// first. At about 1 KiB each they take 4 MiB.
const MaxDecisions = 4096

// maxScored bounds the nodes whose scores a decision keeps.
const maxScored = 10

// Decision is the record of one attempt to place a pod: the answer to "why here?"
// and "why not?".
type Decision struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Attempt counts from 1.
	Attempt int           `json:"attempt"`
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"`
	// Node is where the pod was put; "" means nowhere.
	Node string `json:"node,omitempty"`
	// Nominated is the node that is being freed for the pod.
	Nominated string `json:"nominated,omitempty"`
	// Victims are the pods evicted for it.
	Victims []string `json:"victims,omitempty"`
	// Nodes is how many nodes there were.
	Nodes int `json:"nodes"`
	// Refusals are the reasons of the nodes that did not fit.
	Refusals []Refusal `json:"refusals,omitempty"`
	// Scores are the best nodes that did, the best first.
	Scores []Scored `json:"scores,omitempty"`
	// Gates are the scheduling gates that keep the pod from being looked at.
	Gates []string `json:"gates,omitempty"`
	// Message is upstream's sentence about it, as in the pod's condition.
	Message string `json:"message,omitempty"`
}

// Refusal is one reason, with the nodes that gave it.
type Refusal struct {
	Filter string `json:"filter"`
	Reason string `json:"reason"`
	Nodes  int    `json:"nodes"`
	// Example is the name of one such node.
	Example string `json:"example"`
	// Final: removing pods would not help there.
	Final bool `json:"final,omitempty"`
}

// Scored is one node's score, in total and by plugin, weighted.
type Scored struct {
	Node  string           `json:"node"`
	Total int64            `json:"total"`
	Parts map[string]int64 `json:"parts"`
}

// refuse notes that a node did not fit.
func (d *Decision) refuse(node, filter string, r Reason) {
	for i := range d.Refusals {
		if known := &d.Refusals[i]; known.Filter == filter && known.Reason == r.Text {
			known.Nodes++
			known.Final = known.Final && r.Final
			return
		}
	}
	d.Refusals = append(d.Refusals, Refusal{Filter: filter, Reason: r.Text, Nodes: 1, Example: node, Final: r.Final})
}

// sentence is upstream's summary: "0/3 nodes are available: 1 Insufficient cpu, …".
func (d *Decision) sentence(preemption string) string {
	if d.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	var reasons []string
	for _, r := range d.Refusals {
		reasons = append(reasons, fmt.Sprintf("%d %s", r.Nodes, r.Reason))
	}
	slices.Sort(reasons)
	text := fmt.Sprintf("0/%d nodes are available: %s.", d.Nodes, strings.Join(reasons, ", "))
	if preemption != "" {
		text += " " + preemption
	}
	return text
}

// filters are the names of the filters that refused.
func (d *Decision) filters() map[string]bool {
	names := map[string]bool{}
	for _, r := range d.Refusals {
		names[r.Filter] = true
	}
	return names
}

// Records keeps the last decision about each pod. Its methods may be called from
// any goroutine.
type Records struct {
	mu    sync.Mutex
	byPod map[string]Decision
	order []string
}

func newRecords() *Records { return &Records{byPod: map[string]Decision{}} }

// Of returns the last decision about a pod.
func (r *Records) Of(namespace, name string) (Decision, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.byPod[namespace+"/"+name]
	return d, ok
}

func (r *Records) put(d Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := d.Namespace + "/" + d.Name
	if _, known := r.byPod[key]; !known {
		if len(r.order) >= MaxDecisions {
			delete(r.byPod, r.order[0])
			r.order = r.order[1:]
		}
		r.order = append(r.order, key)
	}
	r.byPod[key] = d
}

// unschedulable is the pod condition that tells of a refusal.
func unschedulable(reason, message string, generation int64) corev1.PodCondition {
	return corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
		Reason: reason, Message: message, ObservedGeneration: generation,
	}
}
