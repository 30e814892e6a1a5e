// Package podaffinity places pods beside or away from other pods.
package podaffinity

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Plugin is upstream's InterPodAffinity.
type Plugin struct{}

// Name implements scheduler.Filter and scheduler.Score.
func (Plugin) Name() string { return "InterPodAffinity" }

// Depends implements scheduler.Filter and scheduler.Score.
func (Plugin) Depends() scheduler.Dependence { return scheduler.OnCluster }

// counted is a term of the pod's own with the pods that it means.
type counted struct {
	scheduler.Term
	*scheduler.Tally
}

// count counts what each of a pod's terms means. Pods that only some of the terms
// of together mean do not count.
func count(terms []scheduler.Term, together bool, v scheduler.View) []counted {
	list := make([]counted, 0, len(terms))
	for i := range terms {
		means := func(namespace string, labels map[string]string) bool { return terms[i].Means(v, namespace, labels) }
		if together {
			means = func(namespace string, labels map[string]string) bool { return meansAll(terms, namespace, labels, v) }
		}
		list = append(list, counted{terms[i], v.Tally(scheduler.Count{
			Key: terms[i].Key, Means: means, ByNamespaceLabels: together || terms[i].ByNamespaceLabels(),
		})})
	}
	return list
}

func meansAll(terms []scheduler.Term, namespace string, labels map[string]string, v scheduler.View) bool {
	for i := range terms {
		if !terms[i].Means(v, namespace, labels) {
			return false
		}
	}
	return len(terms) > 0
}

// facing are the terms of pods on nodes that mean one pod.
type facing struct {
	view        scheduler.View
	pod         *corev1.Pod
	want        func(scheduler.TermKind) bool
	terms       []*scheduler.HeldTerm
	seen, epoch int
}

// current brings the terms up to date; most often there is nothing to do.
func (f *facing) current() []*scheduler.HeldTerm {
	held := f.view.Held()
	if f.epoch != held.Epoch() {
		f.terms, f.seen, f.epoch = f.terms[:0], 0, held.Epoch()
	}
	for _, t := range held.Since(f.seen) {
		f.seen++
		if f.want(t.Kind) && t.Means(f.view, f.pod.Namespace, f.pod.Labels) {
			f.terms = append(f.terms, t)
		}
	}
	return f.terms
}

// anywhere says whether a pod on any node has one of the terms.
func (f *facing) anywhere() bool {
	for _, t := range f.current() {
		if t.Total() > 0 {
			return true
		}
	}
	return false
}

// Filter is the part that must hold.
type Filter struct{ Plugin }

// fit is what is known of one pod before nodes are looked at.
type fit struct {
	near, far []counted
	shunned   facing
	// likes: the pod is one of those that it wants to be near.
	likes bool
}

// For implements scheduler.Filter.
func (f Filter) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	fit, _ := f.ForQuiet(pod, v)
	return fit
}

// ForQuiet implements scheduler.QuietFilter.
func (Filter) ForQuiet(pod *corev1.Pod, v scheduler.View) (scheduler.Fit, func() bool) {
	near := scheduler.Required(pod, false)
	f := fit{
		near: count(near, true, v), far: count(scheduler.Required(pod, true), false, v),
		shunned: facing{view: v, pod: pod, want: func(k scheduler.TermKind) bool { return k == scheduler.RequiredFar }},
		likes:   meansAll(near, pod.Namespace, pod.Labels, v),
	}
	return f.node, f.quiet
}

// quiet: there is nothing to be near to, nobody to be far from, and nobody minds.
func (f *fit) quiet() bool { return len(f.near) == 0 && nowhere(f.far) && !f.shunned.anywhere() }

// nowhere says that no pod is meant.
func nowhere(terms []counted) bool {
	for i := range terms {
		if terms[i].Total() > 0 {
			return false
		}
	}
	return true
}

// node answers for one node.
func (f *fit) node(n *scheduler.Node) scheduler.Reason {
	for i := range f.near {
		if count, ok := f.near[i].On(n); !ok || count == 0 && !f.first() {
			return scheduler.Reason{Text: "node(s) didn't match pod affinity rules", Final: true}
		}
	}
	for i := range f.far {
		if count, _ := f.far[i].On(n); count > 0 {
			return scheduler.Reason{Text: "node(s) didn't match pod anti-affinity rules"}
		}
	}
	for _, t := range f.shunned.current() {
		if count, _ := t.On(n); count > 0 {
			return scheduler.Reason{Text: "node(s) didn't satisfy existing pods anti-affinity rules"}
		}
	}
	return scheduler.OK
}

// first: there is no pod anywhere to be near to, and the pod is of that kind
// itself, so it may open.
func (f *fit) first() bool {
	for i := range f.near {
		if f.near[i].Total() > 0 {
			return false
		}
	}
	return f.likes
}

// Heeds implements scheduler.Filter.
func (Filter) Heeds() scheduler.ChangeKind {
	return scheduler.NodeAdded | scheduler.NodeRemoved | scheduler.NodeLabels | scheduler.PodPlaced | scheduler.PodRemoved | scheduler.NamespaceLabels
}

// Helps implements scheduler.Filter. A pod that comes may be one to be near to; one
// that goes may be the last of those, one to be far from, or may have kept this one
// off. Where labels have become others it is all of that. A node that goes takes its
// pods out of the topology.
func (Filter) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	near, far := scheduler.Required(pod, false), scheduler.Required(pod, true)
	if c.Pod == nil {
		return c.Node == nil || moved(c, near) || moved(c, far) || moved(c, heldAgainst(pod, v)) || c.OldNode == nil && len(near) == 0
	}
	if means(near, v, c.Pod.Namespace, c.Pod.Labels) {
		return true
	}
	set := c.Pod.Labels
	if c.Kind == scheduler.PodPlaced {
		if c.Was == nil {
			return false
		}
		if set = c.Was.Labels; means(near, v, c.Pod.Namespace, set) {
			return true
		}
	}
	return means(far, v, c.Pod.Namespace, set) || c.Was == nil && means(scheduler.Required(c.Pod, true), v, pod.Namespace, pod.Labels)
}

// moved says whether a node is in another domain of some term than before: what is
// on it counts elsewhere now, also for other nodes. A new node comes from none.
func moved(c scheduler.Change, terms []scheduler.Term) bool {
	for i := range terms {
		now, in := c.Node.Labels[terms[i].Key]
		was, before := "", false
		if c.OldNode != nil {
			was, before = c.OldNode.Labels[terms[i].Key]
		}
		if in != before || now != was {
			return true
		}
	}
	return false
}

// heldAgainst are the terms by which pods on nodes keep one away.
func heldAgainst(pod *corev1.Pod, v scheduler.View) (terms []scheduler.Term) {
	for _, t := range v.Held().Since(0) {
		if t.Kind == scheduler.RequiredFar && t.Means(v, pod.Namespace, pod.Labels) {
			terms = append(terms, t.Term)
		}
	}
	return terms
}

func means(terms []scheduler.Term, v scheduler.View, namespace string, set map[string]string) bool {
	for i := range terms {
		if terms[i].Means(v, namespace, set) {
			return true
		}
	}
	return false
}

// Score is the part that should hold, seen from both sides.
type Score struct {
	Plugin
	// HardWeight is what an existing pod's hard affinity to this one is worth;
	// upstream's default is 1.
	HardWeight int64
	// IgnorePreferred: what existing pods would like does not matter to pods that
	// have no wishes themselves.
	IgnorePreferred bool
}

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 2 }

// For implements scheduler.Score.
func (s Score) For(pod *corev1.Pod, v scheduler.View) scheduler.Rating {
	near, far := scheduler.Preferred(pod, false), scheduler.Preferred(pod, true)
	if s.IgnorePreferred && len(near)+len(far) == 0 {
		return nil
	}
	r := &rating{near: count(near, false, v), far: count(far, false, v), hard: s.HardWeight}
	r.facing = facing{view: v, pod: pod, want: func(k scheduler.TermKind) bool {
		return k == scheduler.PreferredNear || k == scheduler.PreferredFar || k == scheduler.RequiredNear && s.HardWeight > 0
	}}
	return r
}

// rating is what each domain is worth to the pod.
type rating struct {
	near, far []counted
	facing    facing
	hard      int64
}

// Quiet implements scheduler.QuietRating.
func (r *rating) Quiet() bool { return nowhere(r.near) && nowhere(r.far) && !r.facing.anywhere() }

// Rate adds up the node's domains.
func (r *rating) Rate(n *scheduler.Node) (sum int64) {
	for i := range r.near {
		count, _ := r.near[i].On(n)
		sum += int64(count) * r.near[i].Weight
	}
	for i := range r.far {
		count, _ := r.far[i].On(n)
		sum -= int64(count) * r.far[i].Weight
	}
	for _, t := range r.facing.current() {
		count, _ := t.On(n)
		switch t.Kind {
		case scheduler.PreferredNear:
			sum += int64(count) * t.Weight
		case scheduler.PreferredFar:
			sum -= int64(count) * t.Weight
		default:
			sum += int64(count) * r.hard
		}
	}
	return sum
}

// Normalise maps the range from lowest to highest to 0 to MaxScore.
func (*rating) Normalise(_ []*scheduler.Node, scores []int64) {
	if len(scores) == 0 {
		return
	}
	lowest, highest := scores[0], scores[0]
	for _, s := range scores {
		lowest, highest = min(lowest, s), max(highest, s)
	}
	for i, s := range scores {
		scores[i] = 0
		if highest > lowest {
			scores[i] = int64(scheduler.MaxScore * (float64(s-lowest) / float64(highest-lowest)))
		}
	}
}
