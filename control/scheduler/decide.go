package scheduler

import (
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client/explain"
)

// rules are the filters and scores of a profile.
type rules struct {
	filters []Filter
	scores  []Score
	// pick breaks ties between the best nodes; it must not be nil.
	pick *rand.Rand
}

// prepared is the filters' view of one pod.
type prepared struct {
	names []string
	fits  []Fit
}

// prepare asks every filter about a pod.
func (r *rules) prepare(pod *corev1.Pod, v View) prepared {
	var p prepared
	for _, f := range r.filters {
		if fit := f.For(pod, v); fit != nil {
			p.names = append(p.names, f.Name())
			p.fits = append(p.fits, fit)
		}
	}
	return p
}

// check holds one node against the pod and names the first filter that refuses.
func (p prepared) check(n *Node) (filter string, why Reason) {
	for i, fit := range p.fits {
		if why := fit(n); why.Refuses() {
			return p.names[i], why
		}
	}
	return "", OK
}

// decide filters and scores: it is a function of the pod and the view, and its
// record says everything that led to the answer.
func (r *rules) decide(pod *corev1.Pod, c *cluster) Decision {
	start := time.Now()
	nodes := c.Nodes()
	d := Decision{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID),
		At: start, Nodes: len(nodes),
	}
	fits := r.prepare(pod, c)
	var feasible []*Node
	for _, n := range nodes {
		filter, why := fits.check(n)
		if !why.Refuses() {
			filter, why = r.withNominated(pod, n, c)
		}
		if why.Refuses() {
			d.Refuse(explain.Refusal{Filter: filter, Reason: why.Text, Example: n.Name, Final: why.Final})
			continue
		}
		feasible = append(feasible, n)
	}
	if len(feasible) > 0 {
		d.Scores = r.score(pod, c, feasible)
		d.Node = r.best(d.Scores)
		d.Scores = d.Scores[:min(len(d.Scores), maxScored)]
	}
	d.Took = time.Since(start)
	return d
}

// withNominated checks a node as it will be when the pods that it is being freed
// for, of no lower priority, are there: nobody takes their place meanwhile.
func (r *rules) withNominated(pod *corev1.Pod, n *Node, c *cluster) (string, Reason) {
	var then *Node
	for uid, other := range c.nominated[n.Name] {
		if uid == pod.UID || priority(other) < priority(pod) {
			continue
		}
		if then == nil {
			then = n.clone()
		}
		then.add(other)
	}
	if then == nil {
		return "", OK
	}
	return r.prepare(pod, c.suppose(then)).check(then)
}

// score adds up the weighted scores of the feasible nodes, the best first.
func (r *rules) score(pod *corev1.Pod, v View, feasible []*Node) []Scored {
	scored := make([]Scored, len(feasible))
	for i, n := range feasible {
		scored[i] = Scored{Node: n.Name, Parts: map[string]int64{}}
	}
	if len(feasible) > 1 {
		for _, s := range r.scores {
			rating := s.For(pod, v, feasible)
			if rating == nil {
				continue
			}
			rate(s, rating, feasible, scored)
		}
	}
	slices.SortStableFunc(scored, func(a, b Scored) int { return int(b.Total - a.Total) })
	return scored
}

// rate adds one plugin's opinion.
func rate(s Score, rating Rating, feasible []*Node, scored []Scored) {
	scores := make([]int64, len(feasible))
	for i, n := range feasible {
		scores[i] = rating.Rate(n)
	}
	rating.Normalise(scores)
	for i := range scored {
		part := scores[i] * s.Weight()
		scored[i].Total += part
		scored[i].Parts[s.Name()] += part
	}
}

// best picks one of the nodes with the highest score at random, so that equal
// nodes share the load.
func (r *rules) best(scored []Scored) string {
	equal := 1
	for equal < len(scored) && scored[equal].Total == scored[0].Total {
		equal++
	}
	return scored[r.pick.IntN(equal)].Node
}

// priority of a pod; none means 0.
func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// helps asks the filters that refused a pod whether a change may let it in.
func (r *rules) helps(pod *corev1.Pod, refused map[string]bool, c Change) bool {
	if len(refused) == 0 {
		return true
	}
	return slices.ContainsFunc(r.filters, func(f Filter) bool {
		return refused[f.Name()] && f.Helps(pod, c)
	})
}
