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
type Plugin struct{}

// Name implements scheduler.Filter and scheduler.Score.
func (Plugin) Name() string { return "PodTopologySpread" }

const (
	notMatched = "node(s) didn't match pod topology spread constraints"
	noLabel    = notMatched + " (missing required label)"
)

// constraint is a topologySpreadConstraint ready to be counted with.
type constraint struct {
	corev1.TopologySpreadConstraint
	selector labels.Selector
	// owner, for the built-in defaults, counts the pods of one controller.
	owner metav1.Object
}

// constraints are the pod's own ones of a kind. A pod with none of its own that
// belongs to a controller gets upstream's defaults, which only prefer.
func constraints(pod *corev1.Pod, when corev1.UnsatisfiableConstraintAction) []constraint {
	var list []constraint
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable != when {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if err != nil {
			continue // validation let no such pod in
		}
		list = append(list, constraint{TopologySpreadConstraint: c, selector: alike(selector, pod, c.MatchLabelKeys)})
	}
	if len(pod.Spec.TopologySpreadConstraints) > 0 || when != corev1.ScheduleAnyway || metav1.GetControllerOf(pod) == nil {
		return list
	}
	for _, d := range []struct {
		key  string
		skew int32
	}{{corev1.LabelHostname, 3}, {corev1.LabelTopologyZone, 5}} {
		list = append(list, constraint{
			TopologySpreadConstraint: corev1.TopologySpreadConstraint{MaxSkew: d.skew, TopologyKey: d.key, WhenUnsatisfiable: when},
			owner:                    pod,
		})
	}
	return list
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

// counts says whether a pod on a node is one of those to be spread.
func (c *constraint) counts(pod, other *corev1.Pod) bool {
	if other.DeletionTimestamp != nil || other.Namespace != pod.Namespace {
		return false
	}
	if c.owner != nil {
		mine, theirs := metav1.GetControllerOf(c.owner), metav1.GetControllerOf(other)
		return theirs != nil && mine.UID == theirs.UID
	}
	return c.selector.Matches(labels.Set(other.Labels))
}

// matching counts a node's pods to be spread.
func (c *constraint) matching(pod *corev1.Pod, n *scheduler.Node) (count int) {
	for _, p := range n.Pods {
		if p.UID != pod.UID && c.counts(pod, p.Pod) {
			count++
		}
	}
	return count
}

// eligible says whether a node's pods are counted at all (KEP-3094: by default
// the pod's node affinity is honoured and taints are not).
func (c *constraint) eligible(pod *corev1.Pod, n *scheduler.Node) bool {
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n.Node); !ok {
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

// Filter is the part that must hold.
type Filter struct{ Plugin }

// For implements scheduler.Filter: it counts once, and then compares.
func (Filter) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	hard := constraints(pod, corev1.DoNotSchedule)
	if len(hard) == 0 {
		return nil
	}
	tables := make([]table, len(hard))
	for i := range hard {
		tables[i] = tabulate(pod, v.Nodes(), hard, &hard[i])
	}
	return func(n *scheduler.Node) scheduler.Reason {
		for i := range hard {
			domain, ok := n.Labels[hard[i].TopologyKey]
			if !ok {
				return scheduler.Reason{Text: noLabel, Final: true}
			}
			if tables[i].skew(domain)+tables[i].self > int(hard[i].MaxSkew) {
				return scheduler.Reason{Text: notMatched}
			}
		}
		return scheduler.OK
	}
}

// table counts matching pods by domain of one constraint.
type table struct {
	counts map[string]int
	least  int
	// self is 1 when the pod matches its own selector.
	self int
}

// tabulate counts over the nodes that have every constraint's label.
func tabulate(pod *corev1.Pod, nodes []*scheduler.Node, all []constraint, c *constraint) table {
	t := table{counts: map[string]int{}}
	for _, n := range nodes {
		if hasLabels(n, all) && c.eligible(pod, n) {
			t.counts[n.Labels[c.TopologyKey]] += c.matching(pod, n)
		}
	}
	t.least = math.MaxInt
	for _, count := range t.counts {
		t.least = min(t.least, count)
	}
	if c.MinDomains != nil && len(t.counts) < int(*c.MinDomains) || len(t.counts) == 0 {
		t.least = 0
	}
	if c.owner != nil || c.selector.Matches(labels.Set(pod.Labels)) {
		t.self = 1
	}
	return t
}

// skew is by how much a domain is above the emptiest one.
func (t table) skew(domain string) int { return t.counts[domain] - t.least }

func hasLabels(n *scheduler.Node, all []constraint) bool {
	for i := range all {
		if _, ok := n.Labels[all[i].TopologyKey]; !ok {
			return false
		}
	}
	return true
}

// Helps implements scheduler.Filter.
func (Filter) Helps(_ *corev1.Pod, c scheduler.Change) bool {
	return c.Kind != scheduler.NodeAllocatable
}

// Score is the part that should hold.
type Score struct{ Plugin }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 2 }

// For implements scheduler.Score.
func (Score) For(pod *corev1.Pod, v scheduler.View, feasible []*scheduler.Node) scheduler.Rating {
	soft := constraints(pod, corev1.ScheduleAnyway)
	r := rating{soft: soft}
	for i := range soft {
		domains := map[string]int{}
		for _, n := range feasible {
			if d, ok := n.Labels[soft[i].TopologyKey]; ok {
				domains[d] = 0
			}
		}
		for _, n := range v.Nodes() {
			d, ok := n.Labels[soft[i].TopologyKey]
			if _, known := domains[d]; ok && known && soft[i].eligible(pod, n) {
				domains[d] += soft[i].matching(pod, n)
			}
		}
		r.domains = append(r.domains, domains)
	}
	if len(soft) == 0 {
		return nil
	}
	return r
}

type rating struct {
	soft    []constraint
	domains []map[string]int
}

// Rate weighs each constraint's count by the logarithm of its domains, as
// upstream does, so that zones and hosts can be compared.
func (r rating) Rate(n *scheduler.Node) int64 {
	var sum float64
	for i, c := range r.soft {
		if d, ok := n.Labels[c.TopologyKey]; ok {
			sum += float64(r.domains[i][d])*math.Log(float64(len(r.domains[i])+2)) + float64(c.MaxSkew-1)
		}
	}
	return int64(math.Round(sum))
}

// Normalise turns counts around: few pods are good.
func (rating) Normalise(scores []int64) {
	lowest, highest := int64(math.MaxInt64), int64(0)
	for _, s := range scores {
		lowest, highest = min(lowest, s), max(highest, s)
	}
	for i, s := range scores {
		if highest == 0 {
			scores[i] = scheduler.MaxScore
			continue
		}
		scores[i] = scheduler.MaxScore * (highest + lowest - s) / highest
	}
}
