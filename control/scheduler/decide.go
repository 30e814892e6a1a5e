package scheduler

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client/explain"
)

// Which part of the nodes is looked at; upstream's numbers. So many feasible ones
// are enough, so that a decision costs the same in a large cluster.
const (
	minFeasible        = 100
	minFeasiblePercent = 5
)

// rules are the filters and scores of a profile.
type rules struct {
	filters []Filter
	scores  []Score
	// percentage of the nodes to find feasible; 0 adapts to their number.
	percentage int32
	extenders  []Extender
	preempting preempting
	// pick breaks ties between the best nodes; it must not be nil.
	pick *rand.Rand
	// start is where in the order of nodes the next decision begins.
	start   int
	classes classes

	// Scratch space of one decision: found are the slots of the feasible nodes,
	// feasible themselves once somebody wants to see them, flat the scores that have
	// no parts.
	found    []int32
	feasible []*Node
	totals   []int64
	parts    [][]int64
	flat     []int64
	refused  []int32
	examples []*Node
	own      []prepared[Fit]
	// broken is the refusal that ended the search, if one did.
	broken *verdict
}

// outcome is a decision with what is only worked out when somebody asks.
type outcome struct {
	Decision
	plugins []string
	best    []ranked
	// final: there is no node where making room would help.
	final bool
	// anywhere is a refusal that does not depend on the node.
	anywhere string
	// verbatim is what is told instead of what the nodes say.
	verbatim string
	// also are filters that the pod waits for beside those that refused it.
	also []string
	// renounced: nothing is kept, or freed, for the pod.
	renounced bool
	// failed is why the attempt came to nothing that is not the nodes' fault.
	failed error
	// spent is the time for what comes before the filters, for these and for the
	// scores, which are not asked when there is no choice; less than 0 for what was
	// not come to.
	spent [3]time.Duration
}

// ranked is one of the best nodes.
type ranked struct {
	node  string
	total int64
	parts []int64 // by plugin
}

// full is the decision with its scores spelt out.
func (o *outcome) full() Decision {
	d := o.Decision
	for _, b := range o.best {
		s := Scored{Node: b.node, Total: b.total, Parts: map[string]int64{}}
		for i, name := range o.plugins {
			s.Parts[name] += b.parts[i]
		}
		d.Scores = append(d.Scores, s)
	}
	return d
}

// sentence is upstream's summary of a refusal; how tells of preemption.
func (o *outcome) sentence(how string) string {
	if o.failed != nil {
		return o.failed.Error()
	}
	if o.verbatim != "" {
		return o.verbatim
	}
	if o.anywhere == "" || o.Nodes == 0 {
		return o.Sentence(how)
	}
	text := fmt.Sprintf("0/%d nodes are available: %s.", o.Nodes, o.anywhere)
	if how != "" {
		text += " " + how
	}
	return text
}

// decide filters and scores: it is a function of the pod and the view, and its
// record says everything that led to the answer.
func (r *rules) decide(pod *corev1.Pod, key string, c *cluster) *outcome {
	start := time.Now()
	k := r.class(pod, key, c)
	nodes := c.Nodes()
	o := &outcome{Decision: Decision{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), At: start, Nodes: len(nodes),
	}, spent: [...]time.Duration{0, -1, -1}}
	why, by := r.precheck(pod, c)
	o.spent[0] = time.Since(start)
	if why.Refuses() {
		o.Refusals = []explain.Refusal{{Filter: by, Reason: why.Text, Nodes: len(nodes), Final: why.Final}}
		o.anywhere, o.final = why.Text, why.Final
		if why.Failed {
			o.failed = fmt.Errorf("running PreFilter plugin %q: %s", by, why.Text)
		}
	} else {
		r.filter(pod, k, c, o)
		r.consult(pod, c, o)
		o.spent[1] = time.Since(start) - o.spent[0]
		r.choose(pod, k, c, o)
	}
	o.Took = time.Since(start)
	if len(r.found) > 1 && o.Node != "" {
		o.spent[2] = o.Took - o.spent[1] - o.spent[0]
	}
	return o
}

// precheck asks the filters that may refuse a pod whatever the node.
func (r *rules) precheck(pod *corev1.Pod, v View) (Reason, string) {
	for _, f := range r.filters {
		if p, ok := f.(Prechecker); ok {
			if why := p.Precheck(pod, v); why.Refuses() {
				return why, f.Name()
			}
		}
	}
	return OK, ""
}

// shut asks the filters that may know that looking at a pod is no use.
func (r *rules) shut(pod *corev1.Pod, v View) (by, why string) {
	for _, f := range r.filters {
		if g, ok := f.(Gate); ok {
			if why := g.Shut(pod, v); why != "" {
				return f.Name(), why
			}
		}
	}
	return "", ""
}

// prepareOwn asks the filters that must see each pod.
func (r *rules) prepareOwn(pod *corev1.Pod, k *class, v View) []prepared[Fit] {
	r.own, k.beforehand = r.own[:0], 0
	for i, f := range k.own {
		if fit := f.For(pod, v); fit != nil {
			if r.own = append(r.own, prepared[Fit]{name: f.Name(), say: fit}); i < k.early {
				k.beforehand = len(r.own)
			}
		}
	}
	return r.own
}

// filter finds feasible nodes, enough of them, and counts the refusals.
func (r *rules) filter(pod *corev1.Pod, k *class, c *cluster, o *outcome) {
	r.feasible, r.found, r.refused, r.examples, r.broken = r.feasible[:0], r.found[:0], r.refused[:0], r.examples[:0], nil
	own := r.prepareOwn(pod, k, c)
	if k.narrowed {
		r.filterFew(pod, k, c, o)
		return
	}
	if r.asNominated(pod, k, own, c) {
		o.Unseen = len(c.Nodes()) - 1
		return
	}
	nodes := c.Nodes()
	enough, begin := r.enough(len(nodes)), 0
	if len(nodes) > 0 {
		begin = r.start % len(nodes)
	}
	looked, quiet := 0, k.quiet(own) && len(c.nominated) == 0
	for len(r.found) < enough && looked < len(nodes) && r.broken == nil {
		at := begin + looked
		if at >= len(nodes) {
			at -= len(nodes)
		}
		looked++
		if slot := c.turns[at]; quiet && k.fits(slot, c.states[slot]) {
			r.found = append(r.found, slot)
			continue
		}
		r.try(pod, nodes[at], k, own, c)
	}
	r.start = begin + looked
	o.Unseen = len(nodes) - looked
	r.tellRefusals(k, o)
}

// asNominated takes the node that is kept for the pod, if it fits there: no other is
// looked at then.
func (r *rules) asNominated(pod *corev1.Pod, k *class, own []prepared[Fit], c *cluster) bool {
	n := c.Node(pod.Status.NominatedNodeName)
	if n == nil || k.check(n, own) != 0 || r.withNominated(pod, n, k, c) != 0 {
		return false
	}
	r.take(n)
	return true
}

// take notes a feasible node.
func (r *rules) take(n *Node) {
	r.found = append(r.found, int32(n.slot)) //nolint:gosec // as many as there are nodes
}

// fit are the nodes that take has noted. Few want to see them, and a pointer costs
// the garbage collector something.
func (r *rules) fit(c *cluster) []*Node {
	if len(r.feasible) != len(r.found) {
		r.feasible = r.feasible[:0]
		for _, slot := range r.found {
			r.feasible = append(r.feasible, c.slots[slot])
		}
	}
	return r.feasible
}

// filterFew looks at nothing but the nodes that are in question.
func (r *rules) filterFew(pod *corev1.Pod, k *class, c *cluster, o *outcome) {
	looked := 0
	for _, name := range k.only {
		if n, ok := c.nodes[name]; ok && n.Node != nil && r.broken == nil {
			r.try(pod, n, k, r.own, c)
			looked++
		}
	}
	r.tellRefusals(k, o)
	if rest := len(c.Nodes()) - looked; rest > 0 && len(r.found) == 0 {
		o.Refusals = append(o.Refusals, explain.Refusal{
			Filter: k.narrowing[0], Reason: "node(s) didn't satisfy plugin(s) [" + strings.Join(k.narrowing, " ") + "]", Nodes: rest, Final: true,
		})
	}
}

// try holds one node against the pod.
func (r *rules) try(pod *corev1.Pod, n *Node, k *class, own []prepared[Fit], c *cluster) {
	at := k.check(n, own)
	if at == 0 && len(c.nominated) > 0 {
		at = r.withNominated(pod, n, k, c)
	}
	if at == 0 {
		r.take(n)
		return
	}
	for len(r.refused) <= int(at) {
		r.refused, r.examples = append(r.refused, 0), append(r.examples, nil)
	}
	if r.refused[at]++; r.refused[at] == 1 {
		r.examples[at] = n
	}
	if v := &k.verdicts[at]; v.why.Failed {
		r.broken = v
	}
}

// tellRefusals writes the refusals into the record.
func (r *rules) tellRefusals(k *class, o *outcome) {
	if v := r.broken; v != nil {
		r.found = r.found[:0]
		o.failed = fmt.Errorf("running %q filter plugin: %s", v.filter, v.why.Text)
	}
	o.final = len(r.found) == 0
	for at, count := range r.refused {
		if count == 0 {
			continue
		}
		v := &k.verdicts[at]
		o.final = o.final && v.why.Final
		o.Refusals = append(o.Refusals, explain.Refusal{
			Filter: v.filter, Reason: v.why.Text, Also: v.why.More, Nodes: int(count), Example: r.examples[at].host, Final: v.why.Final,
		})
	}
}

// enough is how many feasible nodes to look for.
func (r *rules) enough(nodes int) int {
	if nodes < minFeasible {
		return nodes
	}
	percent := int(r.percentage)
	if percent == 0 {
		percent = max(50-nodes/125, minFeasiblePercent)
	}
	return max(nodes*percent/100, minFeasible)
}

// withNominated checks a node as it will be when the pods that it is being freed
// for, of no lower priority, are there: nobody takes their place meanwhile.
func (r *rules) withNominated(pod *corev1.Pod, n *Node, k *class, c *cluster) int32 {
	var there []*corev1.Pod
	for _, other := range c.nominated[n.host] {
		if _, placed := c.pods[other.UID]; !placed && other.UID != pod.UID && priority(other) >= priority(pod) {
			there = append(there, other)
		}
	}
	if len(there) == 0 {
		return 0
	}
	for _, other := range there {
		c.place(other, n.host)
	}
	at := k.check(n, r.own)
	for _, other := range there {
		c.lift(other.UID)
	}
	return at
}

// Priority of a pod; none means 0.
func Priority(pod *corev1.Pod) int32 { return priority(pod) }

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}
