// Package podaffinity places pods beside or away from other pods.
package podaffinity

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Plugin is upstream's InterPodAffinity.
type Plugin struct{}

// Name implements scheduler.Filter and scheduler.Score.
func (Plugin) Name() string { return "InterPodAffinity" }

// term is an affinity term ready to be matched.
type term struct {
	key        string
	namespaces map[string]bool
	// byLabel selects namespaces in addition; nil selects none.
	byLabel  labels.Selector
	selector labels.Selector
	weight   int64
}

// newTerm prepares a term of the pod that has it. Without namespaces it means
// the pod's own; (mis)matchLabelKeys have been merged into the selector by the
// API server (KEP-3633).
func newTerm(pod *corev1.Pod, t *corev1.PodAffinityTerm, weight int64) (term, bool) {
	selector, err := metav1.LabelSelectorAsSelector(t.LabelSelector)
	if err != nil {
		return term{}, false
	}
	out := term{key: t.TopologyKey, selector: selector, weight: weight, namespaces: map[string]bool{}}
	for _, ns := range t.Namespaces {
		out.namespaces[ns] = true
	}
	if t.NamespaceSelector != nil {
		if out.byLabel, err = metav1.LabelSelectorAsSelector(t.NamespaceSelector); err != nil {
			return term{}, false
		}
	} else if len(t.Namespaces) == 0 {
		out.namespaces[pod.Namespace] = true
	}
	return out, true
}

// matches says whether the term means a pod.
func (t *term) matches(other *corev1.Pod, v scheduler.View) bool {
	if !t.selector.Matches(labels.Set(other.Labels)) {
		return false
	}
	return t.namespaces[other.Namespace] ||
		t.byLabel != nil && t.byLabel.Matches(labels.Set(v.NamespaceLabels(other.Namespace)))
}

// required are the hard terms of a pod; anti chooses which.
func required(pod *corev1.Pod, anti bool) []term {
	var from []corev1.PodAffinityTerm
	if a := pod.Spec.Affinity; a != nil && anti && a.PodAntiAffinity != nil {
		from = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	} else if a != nil && !anti && a.PodAffinity != nil {
		from = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	var list []term
	for i := range from {
		if t, ok := newTerm(pod, &from[i], 1); ok {
			list = append(list, t)
		}
	}
	return list
}

// preferred are the soft terms of a pod, with the sign of their effect.
func preferred(pod *corev1.Pod) []term {
	a := pod.Spec.Affinity
	if a == nil {
		return nil
	}
	var list []term
	take := func(from []corev1.WeightedPodAffinityTerm, sign int64) {
		for i := range from {
			if t, ok := newTerm(pod, &from[i].PodAffinityTerm, sign*int64(from[i].Weight)); ok {
				list = append(list, t)
			}
		}
	}
	if a.PodAffinity != nil {
		take(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	}
	if a.PodAntiAffinity != nil {
		take(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, -1)
	}
	return list
}

// place is a topology domain: a label's key and value.
type place struct{ key, value string }

// Filter is the part that must hold.
type Filter struct{ Plugin }

// fit is what is known of one pod before nodes are looked at.
type fit struct {
	affinity, anti []term
	// near counts, per term of affinity, the domains where all terms' pods are.
	near map[place]int
	// avoid are domains of pods that the pod's anti-affinity means; shunned are
	// domains of pods whose own anti-affinity means this pod.
	avoid, shunned map[place]bool
	// first: no pod anywhere matches, and the pod matches itself, so it may open.
	first bool
}

// For implements scheduler.Filter.
func (Filter) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	f := fit{
		affinity: required(pod, false), anti: required(pod, true),
		near: map[place]int{}, avoid: map[place]bool{}, shunned: map[place]bool{},
	}
	for _, n := range v.WithAffinity() {
		f.shun(pod, n, v)
	}
	if len(f.affinity)+len(f.anti) > 0 {
		for _, n := range v.Nodes() {
			f.survey(n, v)
		}
	}
	if len(f.affinity)+len(f.anti)+len(f.shunned) == 0 {
		return nil
	}
	f.first = len(f.near) == 0 && matchesAll(f.affinity, pod, v)
	return f.node
}

// shun notes where pods are that do not want this one.
func (f *fit) shun(pod *corev1.Pod, n *scheduler.Node, v scheduler.View) {
	for _, other := range n.Pods {
		if !other.HasAffinity() {
			continue
		}
		for _, t := range required(other.Pod, true) {
			if value, ok := n.Labels[t.key]; ok && t.matches(pod, v) {
				f.shunned[place{t.key, value}] = true
			}
		}
	}
}

// survey notes where pods are that this one wants near or far.
func (f *fit) survey(n *scheduler.Node, v scheduler.View) {
	for _, other := range n.Pods {
		if len(f.affinity) > 0 && matchesAll(f.affinity, other.Pod, v) {
			for i := range f.affinity {
				if value, ok := n.Labels[f.affinity[i].key]; ok {
					f.near[place{f.affinity[i].key, value}]++
				}
			}
		}
		for i := range f.anti {
			if value, ok := n.Labels[f.anti[i].key]; ok && f.anti[i].matches(other.Pod, v) {
				f.avoid[place{f.anti[i].key, value}] = true
			}
		}
	}
}

// matchesAll: affinity asks for a pod that all terms mean.
func matchesAll(terms []term, pod *corev1.Pod, v scheduler.View) bool {
	for i := range terms {
		if !terms[i].matches(pod, v) {
			return false
		}
	}
	return len(terms) > 0
}

// node answers for one node.
func (f *fit) node(n *scheduler.Node) scheduler.Reason {
	for _, t := range f.affinity {
		value, ok := n.Labels[t.key]
		if !ok || f.near[place{t.key, value}] == 0 && !f.first {
			return scheduler.Reason{Text: "node(s) didn't match pod affinity rules", Final: true}
		}
	}
	for _, t := range f.anti {
		if value, ok := n.Labels[t.key]; ok && f.avoid[place{t.key, value}] {
			return scheduler.Reason{Text: "node(s) didn't match pod anti-affinity rules"}
		}
	}
	for p := range f.shunned {
		if n.Labels[p.key] == p.value {
			return scheduler.Reason{Text: "node(s) didn't satisfy existing pods anti-affinity rules"}
		}
	}
	return scheduler.OK
}

// Helps implements scheduler.Filter.
func (Filter) Helps(_ *corev1.Pod, c scheduler.Change) bool {
	return c.Kind != scheduler.NodeAllocatable && c.Kind != scheduler.NodeTaints
}

// Score is the part that should hold, seen from both sides.
type Score struct{ Plugin }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 2 }

// hardWeight is what an existing pod's hard affinity to this one is worth.
const hardWeight = 1

// For implements scheduler.Score.
func (Score) For(pod *corev1.Pod, v scheduler.View, _ []*scheduler.Node) scheduler.Rating {
	r := rating{}
	mine := preferred(pod)
	if len(mine) > 0 {
		for _, n := range v.Nodes() {
			for _, other := range n.Pods {
				r.add(mine, other.Pod, n, v)
			}
		}
	}
	for _, n := range v.WithAffinity() {
		for _, other := range n.Pods {
			if !other.HasAffinity() {
				continue
			}
			theirs := preferred(other.Pod)
			for _, t := range required(other.Pod, false) {
				t.weight = hardWeight
				theirs = append(theirs, t)
			}
			r.add(theirs, pod, n, v)
		}
	}
	if len(r) == 0 {
		return nil
	}
	return r
}

// rating is what each domain is worth to the pod.
type rating map[place]int64

// add credits the domain of n with each term that means a pod.
func (r rating) add(terms []term, meant *corev1.Pod, n *scheduler.Node, v scheduler.View) {
	for i := range terms {
		if value, ok := n.Labels[terms[i].key]; ok && terms[i].matches(meant, v) {
			r[place{terms[i].key, value}] += terms[i].weight
		}
	}
}

// Rate adds up the node's domains.
func (r rating) Rate(n *scheduler.Node) (sum int64) {
	for p, weight := range r {
		if n.Labels[p.key] == p.value {
			sum += weight
		}
	}
	return sum
}

// Normalise maps the range from lowest to highest to 0 to MaxScore.
func (rating) Normalise(scores []int64) {
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
			scores[i] = scheduler.MaxScore * (s - lowest) / (highest - lowest)
		}
	}
}
