// Package spread spreads a workload's pods over zones, nodes or any other
// topology (KEP-895).
package spread

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Plugin is upstream's PodTopologySpread.
type Plugin struct {
	// Defaults are the constraints of pods that have none of their own but
	// belong together by a service or a controller.
	Defaults []corev1.TopologySpreadConstraint
	// Lenient: upstream's own defaults, which let nodes without a zone take part.
	Lenient bool
}

// System is the plugin with upstream's own defaults, which only prefer.
func System() Plugin {
	return Plugin{Lenient: true, Defaults: []corev1.TopologySpreadConstraint{
		{MaxSkew: 3, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway},
		{MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway},
	}}
}

// Name implements scheduler.Filter and scheduler.Score.
func (Plugin) Name() string { return "PodTopologySpread" }

// Depends implements scheduler.Filter and scheduler.Score.
func (Plugin) Depends() scheduler.Dependence { return scheduler.OnCluster }

const (
	notMatched = "node(s) didn't match pod topology spread constraints"
	noLabel    = notMatched + " (missing required label)"
)

// constraint is a topologySpreadConstraint ready to be counted with.
type constraint struct {
	corev1.TopologySpreadConstraint
	selector labels.Selector
	*scheduler.Tally
	// self is 1 when the pod matches its own selector.
	self int
}

// constraints are the pod's own ones of a kind, or else the defaults; own tells.
func (p Plugin) constraints(pod *corev1.Pod, when corev1.UnsatisfiableConstraintAction, v scheduler.View) (list []*constraint, own bool) {
	from := pod.Spec.TopologySpreadConstraints
	var shared labels.Selector
	if own = len(from) > 0; !own {
		from = p.Defaults
	}
	for _, c := range from {
		if c.WhenUnsatisfiable != when {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if err != nil {
			continue // validation let no such pod in
		}
		if !own {
			if shared == nil {
				if shared = v.Selector(pod); shared == nil {
					return nil, false
				}
			}
			selector = shared
		}
		list = append(list, &constraint{TopologySpreadConstraint: c, selector: alike(selector, pod, c.MatchLabelKeys)})
	}
	return list, own
}

// alike adds matchLabelKeys: the pod's own values of those keys (KEP-3243).
func alike(s labels.Selector, pod *corev1.Pod, keys []string) labels.Selector {
	for _, k := range keys {
		value, ok := pod.Labels[k]
		if !ok {
			continue
		}
		if r, err := labels.NewRequirement(k, "=", []string{value}); err == nil {
			s = s.Add(*r)
		}
	}
	return s
}

// count begins to count a constraint's pods. With strict, nodes must have the
// labels of all constraints to be counted.
func (c *constraint) count(pod *corev1.Pod, all []*constraint, strict bool, v scheduler.View) {
	counted := scheduler.Count{
		Key: c.TopologyKey, Living: true,
		Means: func(namespace string, set map[string]string) bool {
			return namespace == pod.Namespace && !c.selector.Empty() && c.selector.Matches(labels.Set(set))
		},
	}
	if strict || c.selective(pod) {
		affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
		counted.Eligible = func(n *scheduler.Node) bool {
			return (!strict || hasLabels(n, all)) && c.eligible(pod, affinity, n)
		}
	}
	c.Tally = v.Tally(counted)
	if c.selector.Matches(labels.Set(pod.Labels)) {
		c.self = 1
	}
}

// selective says whether there can be nodes that are not eligible.
func (c *constraint) selective(pod *corev1.Pod) bool {
	a := pod.Spec.Affinity
	picky := len(pod.Spec.NodeSelector) > 0 || a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil
	return picky || c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy != corev1.NodeInclusionPolicyIgnore
}

// eligible says whether a node's pods are counted at all (KEP-3094: by default
// the pod's node affinity is honoured and taints are not).
func (c *constraint) eligible(pod *corev1.Pod, affinity nodeaffinity.RequiredNodeAffinity, n *scheduler.Node) bool {
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, _ := affinity.Match(n.Node); !ok {
			return false
		}
	}
	if c.NodeTaintsPolicy == nil || *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyIgnore {
		return true
	}
	for i := range n.Spec.Taints {
		if t := &n.Spec.Taints[i]; t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerated(pod, t) {
			return false
		}
	}
	return true
}

func tolerated(pod *corev1.Pod, t *corev1.Taint) bool {
	for i := range pod.Spec.Tolerations {
		if pod.Spec.Tolerations[i].ToleratesTaint(klog.Logger{}, t, false) {
			return true
		}
	}
	return false
}

func hasLabels(n *scheduler.Node, all []*constraint) bool {
	for _, c := range all {
		if _, ok := n.Labels[c.TopologyKey]; !ok {
			return false
		}
	}
	return true
}

// Filter is the part that must hold.
type Filter struct{ Plugin }

// For implements scheduler.Filter.
func (f Filter) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	hard, _ := f.constraints(pod, corev1.DoNotSchedule, v)
	if len(hard) == 0 {
		return nil
	}
	for _, c := range hard {
		c.count(pod, hard, true, v)
	}
	return func(n *scheduler.Node) scheduler.Reason {
		for _, c := range hard {
			count, ok := c.On(n)
			if !ok {
				return scheduler.Reason{Text: noLabel, Final: true}
			}
			if count+c.self-c.least() > int(c.MaxSkew) {
				return scheduler.Reason{Text: notMatched}
			}
		}
		return scheduler.OK
	}
}

// least is the number of pods of the emptiest domain; 0 while there are fewer
// domains than there should be.
func (c *constraint) least() int {
	if c.MinDomains != nil && c.Domains() < int(*c.MinDomains) {
		return 0
	}
	return c.Least()
}

// Heeds implements scheduler.Filter.
func (Filter) Heeds() scheduler.ChangeKind {
	return scheduler.NodeAdded | scheduler.NodeRemoved | scheduler.NodeLabels | scheduler.NodeTaints |
		scheduler.PodPlaced | scheduler.PodEnding | scheduler.PodRemoved
}

// Helps implements scheduler.Filter: what is counted must have changed.
func (f Filter) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	hard, _ := f.constraints(pod, corev1.DoNotSchedule, v)
	switch {
	case c.Pod == nil && c.Node != nil && c.OldNode != nil:
		return moved(hard, pod, c)
	case c.Pod == nil:
		return (c.Node != nil && keyed(hard, c.Node)) || (c.OldNode != nil && keyed(hard, c.OldNode))
	}
	if c.Pod.Namespace != pod.Namespace {
		return false
	}
	for _, h := range hard {
		now := h.selector.Matches(labels.Set(c.Pod.Labels))
		if now && c.Was == nil || c.Was != nil && now != h.selector.Matches(labels.Set(c.Was.Labels)) {
			return true
		}
	}
	return false
}

// moved says whether a node is in another domain than before, or counts no longer, or
// only now.
func moved(hard []*constraint, pod *corev1.Pod, c scheduler.Change) bool {
	affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
	now, old := scheduler.NewNode(c.Node), scheduler.NewNode(c.OldNode)
	for _, h := range hard {
		is, in := now.Labels[h.TopologyKey]
		was, before := old.Labels[h.TopologyKey]
		if is != was || in != before || h.eligible(pod, affinity, now) != h.eligible(pod, affinity, old) {
			return true
		}
	}
	return false
}

// keyed says whether a node is in a domain of every constraint.
func keyed(hard []*constraint, n *corev1.Node) bool {
	for _, h := range hard {
		if _, ok := n.Labels[h.TopologyKey]; !ok {
			return false
		}
	}
	return true
}

// Score is the part that should hold.
type Score struct{ Plugin }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 2 }

// For implements scheduler.Score.
func (s Score) For(pod *corev1.Pod, v scheduler.View) scheduler.Rating {
	soft, own := s.constraints(pod, corev1.ScheduleAnyway, v)
	if len(soft) == 0 {
		return nil
	}
	strict := own || !s.Lenient
	for _, c := range soft {
		c.count(pod, soft, strict, v)
	}
	return &rating{soft: soft, strict: strict, weights: make([]float64, len(soft))}
}

type rating struct {
	soft    []*constraint
	weights []float64
	// strict: nodes without all labels get nothing.
	strict bool
	seen   []uint32 // domain → last survey
	survey uint32
}

// Survey counts the domains of the feasible nodes: each constraint's count is
// weighed by the logarithm of their number, so that zones and hosts can be
// compared.
func (r *rating) Survey(feasible []*scheduler.Node) {
	rated := 0
	for _, n := range feasible {
		if !r.ignores(n) {
			rated++
		}
	}
	for i, c := range r.soft {
		domains := rated
		if c.TopologyKey != corev1.LabelHostname {
			domains = r.domains(c, feasible)
		}
		r.weights[i] = math.Log(float64(domains + 2))
	}
}

// domains counts the different domains of one constraint. Where nodes without the label
// take part, they are one too.
func (r *rating) domains(c *constraint, feasible []*scheduler.Node) (count int) {
	r.survey++
	outside := r.strict
	for _, n := range feasible {
		d := c.Domain(n)
		if d < 0 {
			if !outside {
				outside = true
				count++
			}
			continue
		}
		for len(r.seen) <= d {
			r.seen = append(r.seen, 0)
		}
		if r.seen[d] != r.survey {
			r.seen[d] = r.survey
			count++
		}
	}
	return count
}

// ignores says whether a node lacks a label that it must have. Who is in a domain has
// its label, which is quicker to see.
func (r *rating) ignores(n *scheduler.Node) bool {
	if !r.strict {
		return false
	}
	for _, c := range r.soft {
		if c.Domain(n) < 0 {
			return !hasLabels(n, r.soft)
		}
	}
	return false
}

// Rate implements scheduler.Rating.
func (r *rating) Rate(n *scheduler.Node) int64 {
	var sum float64
	for i, c := range r.soft {
		count, ok := c.On(n)
		if !ok {
			if r.strict {
				return 0
			}
			continue
		}
		if c.TopologyKey == corev1.LabelHostname {
			count = c.Here(n)
		}
		sum += float64(count)*r.weights[i] + float64(c.MaxSkew-1)
	}
	return int64(math.Round(sum))
}

// Normalise turns counts around: few pods are good.
func (r *rating) Normalise(nodes []*scheduler.Node, scores []int64) {
	lowest, highest := int64(math.MaxInt64), int64(0)
	for i, s := range scores {
		if !r.ignores(nodes[i]) {
			lowest, highest = min(lowest, s), max(highest, s)
		}
	}
	for i, s := range scores {
		switch {
		case r.ignores(nodes[i]):
			scores[i] = 0
		case highest == 0:
			scores[i] = scheduler.MaxScore
		default:
			scores[i] = scheduler.MaxScore * (highest + lowest - s) / highest
		}
	}
}
