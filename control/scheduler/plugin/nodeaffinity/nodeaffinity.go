// Package nodeaffinity holds a pod's nodeSelector and node affinity against nodes.
package nodeaffinity

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Plugin is upstream's NodeAffinity.
type Plugin struct {
	// Added is node affinity that every pod of the profile has in addition to its
	// own; it may be nil.
	Added *corev1.NodeAffinity
}

// Name implements scheduler.Filter and scheduler.Score.
func (Plugin) Name() string { return "NodeAffinity" }

// Depends implements scheduler.Filter and scheduler.Score.
func (Plugin) Depends() scheduler.Dependence { return scheduler.OnNode }

// Heeds implements scheduler.Filter.
func (Plugin) Heeds() scheduler.ChangeKind { return scheduler.NodeAdded | scheduler.NodeLabels }

// Filter is the required part.
type Filter struct{ Plugin }

const (
	notMatched = "node(s) didn't match Pod's node affinity/selector"
	notAdded   = "node(s) didn't match scheduler-enforced node affinity"
)

// For implements scheduler.Filter.
func (f Filter) For(pod *corev1.Pod, _ scheduler.View) scheduler.Fit {
	added := f.added()
	if len(pod.Spec.NodeSelector) == 0 && required(pod) == nil && added == nil {
		return nil
	}
	affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
	return func(n *scheduler.Node) scheduler.Reason {
		if added != nil {
			if !added.Match(n.Node) {
				return scheduler.Reason{Text: notAdded, Final: true}
			}
		}
		if ok, _ := affinity.Match(n.Node); ok {
			return scheduler.OK
		}
		return scheduler.Reason{Text: notMatched, Final: true}
	}
}

func (f Filter) added() *nodeaffinity.NodeSelector {
	if f.Added == nil || f.Added.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	selector, err := nodeaffinity.NewNodeSelector(f.Added.RequiredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return nil // the configuration has been checked
	}
	return selector
}

// Only implements scheduler.Narrower: terms that each name a node by
// metadata.name, as those of daemons do, leave no others.
func (Filter) Only(pod *corev1.Pod) (names []string, narrowed bool) {
	terms := required(pod)
	if terms == nil || len(terms.NodeSelectorTerms) == 0 {
		return nil, false
	}
	for _, t := range terms.NodeSelectorTerms {
		var these []string
		named := false
		for _, f := range t.MatchFields {
			if f.Key != metav1.ObjectNameField || f.Operator != corev1.NodeSelectorOpIn {
				continue
			}
			if named { // all requirements of a term must hold
				these = slices.DeleteFunc(these, func(s string) bool { return !slices.Contains(f.Values, s) })
				continue
			}
			these, named = slices.Clone(f.Values), true
		}
		if !named {
			return nil, false
		}
		names = append(names, these...)
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// Helps implements scheduler.Filter.
func (f Filter) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	return c.Became(f.For(pod, v))
}

// Score is the preferred part.
type Score struct{ Plugin }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 2 }

// For implements scheduler.Score.
func (s Score) For(pod *corev1.Pod, _ scheduler.View) scheduler.Rating {
	var r rating
	if s.Added != nil {
		r.take(s.Added.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		r.take(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if len(r.terms) == 0 {
		return nil
	}
	return r
}

type rating struct {
	terms []*nodeaffinity.PreferredSchedulingTerms
}

func (r *rating) take(preferred []corev1.PreferredSchedulingTerm) {
	if len(preferred) == 0 {
		return
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(preferred)
	if err != nil {
		return // validation let no such pod in
	}
	r.terms = append(r.terms, terms)
}

// Rate implements scheduler.Rating.
func (r rating) Rate(n *scheduler.Node) (sum int64) {
	for _, t := range r.terms {
		sum += t.Score(n.Node)
	}
	return sum
}

// Normalise implements scheduler.Rating.
func (rating) Normalise(_ []*scheduler.Node, scores []int64) { scheduler.Linear(scores, false) }

func required(pod *corev1.Pod) *corev1.NodeSelector {
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	return nil
}
