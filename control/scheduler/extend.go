package scheduler

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client/explain"
)

// Extender is a program beside the scheduler that has a say too. Its answers are
// waited for by the goroutine that decides.
type Extender interface {
	// Name is who refuses, in records.
	Name() string
	// Ignorable: its failure is passed over in silence.
	Ignorable() bool
	// Interested says whether a pod is its business.
	Interested(pod *corev1.Pod) bool
	// Filter keeps some of the nodes; refused tells of others.
	Filter(pod *corev1.Pod, nodes []*Node) (kept []*Node, refused map[string]Reason, err error)
	// Prioritize gives nodes points, weighted already, by name.
	Prioritize(pod *corev1.Pod, nodes []*Node) (map[string]int64, error)
	// Preempt keeps some of the ways to make room; nil stands for all.
	Preempt(pod *corev1.Pod, ways map[string]Victims) (map[string]Victims, error)
	// Binds says whether it writes the bindings of the pods it is interested in.
	Binds() bool
	// Bind writes a binding.
	Bind(ctx context.Context, pod *corev1.Pod, node string) error
}

// Victims are the pods to evict from a node.
type Victims struct {
	Node *Node
	Pods []*corev1.Pod
	// Violations counts those whose disruption budget does not allow it.
	Violations int
}

// consult lets the extenders refuse feasible nodes.
func (r *rules) consult(pod *corev1.Pod, c *cluster, o *outcome) {
	for _, e := range r.extenders {
		if len(r.found) == 0 {
			return
		}
		if !e.Interested(pod) {
			continue
		}
		nodes := r.fit(c)
		kept, refused, err := e.Filter(pod, nodes)
		if err != nil {
			if e.Ignorable() {
				continue
			}
			o.Refusals = append(o.Refusals, explain.Refusal{Filter: e.Name(), Reason: err.Error(), Nodes: len(nodes), Final: true})
			o.failed, r.found = err, r.found[:0]
			return
		}
		for _, n := range nodes {
			if why, ok := refused[n.host]; ok {
				o.Refuse(explain.Refusal{Filter: e.Name(), Reason: why.Text, Example: n.host, Final: why.Final})
				o.final = o.final && why.Final
			}
		}
		r.feasible, r.found = nil, r.found[:0] // nodes is the extender's to keep
		for _, n := range kept {
			r.take(n)
		}
	}
}

// prioritize adds the extenders' points.
func (r *rules) prioritize(pod *corev1.Pod, c *cluster) {
	for _, e := range r.extenders {
		if !e.Interested(pod) {
			continue
		}
		nodes := r.fit(c)
		points, err := e.Prioritize(pod, nodes)
		if err != nil {
			continue // upstream's rule: points are not worth failing for
		}
		for i, n := range nodes {
			r.totals[i] += points[n.host]
		}
	}
}

// consultPreemption lets the extenders refuse ways to make room.
func (r *rules) consultPreemption(pod *corev1.Pod, found []*preemption, c *cluster) []*preemption {
	for _, e := range r.extenders {
		if len(found) == 0 || !e.Interested(pod) {
			continue
		}
		ways := map[string]Victims{}
		for _, p := range found {
			ways[p.node] = Victims{Node: c.nodes[p.node], Pods: p.victims, Violations: p.violations}
		}
		kept, err := e.Preempt(pod, ways)
		switch {
		case err != nil && e.Ignorable(), err == nil && kept == nil:
			continue
		case err != nil:
			return nil
		}
		var left []*preemption
		for _, p := range found {
			if w, ok := kept[p.node]; ok && len(w.Pods) > 0 {
				left = append(left, &preemption{node: p.node, victims: w.Pods, violations: w.Violations})
			}
		}
		found = left
	}
	return found
}
