// Package explain holds the records by which components account for what they
// did, and the way to ask a server for them: what "sampan why" and "sampan trace"
// read.
package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

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
	// Nodes is how many nodes there were; Unseen those that were not looked at,
	// since enough others fitted.
	Nodes  int `json:"nodes"`
	Unseen int `json:"unseen,omitempty"`
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
	// Also are further reasons that the same nodes gave.
	Also  []string `json:"also,omitempty"`
	Nodes int      `json:"nodes"`
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

// Refuse notes that one node, r.Example, did not fit.
func (d *Decision) Refuse(r Refusal) {
	for i := range d.Refusals {
		if known := &d.Refusals[i]; known.Filter == r.Filter && known.Reason == r.Reason && slices.Equal(known.Also, r.Also) {
			known.Nodes++
			known.Final = known.Final && r.Final
			return
		}
	}
	r.Nodes = 1
	d.Refusals = append(d.Refusals, r)
}

// Refused is how many nodes did not fit.
func (d *Decision) Refused() (count int) {
	for _, r := range d.Refusals {
		count += r.Nodes
	}
	return count
}

// Sentence is upstream's summary: "0/3 nodes are available: 1 Insufficient cpu, …".
func (d *Decision) Sentence(preemption string) string {
	if d.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	counts := map[string]int{}
	for _, r := range d.Refusals {
		counts[r.Reason] += r.Nodes
		for _, also := range r.Also {
			counts[also] += r.Nodes
		}
	}
	var reasons []string
	for reason, nodes := range counts {
		reasons = append(reasons, fmt.Sprintf("%d %s", nodes, reason))
	}
	slices.Sort(reasons)
	text := fmt.Sprintf("0/%d nodes are available: %s.", d.Nodes, strings.Join(reasons, ", "))
	if preemption != "" {
		text += " " + preemption
	}
	return text
}

// Filters are the names of the filters that refused, sorted.
func (d *Decision) Filters() []string {
	var names []string
	for _, r := range d.Refusals {
		if !slices.Contains(names, r.Filter) {
			names = append(names, r.Filter)
		}
	}
	slices.Sort(names)
	return names
}
