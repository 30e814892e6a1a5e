// Package nodeaffinity holds a pod's nodeSelector and node affinity against nodes.
package nodeaffinity

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Plugin is upstream's NodeAffinity.
type Plugin struct{}

// Name implements scheduler.Filter and scheduler.Score.
func (Plugin) Name() string { return "NodeAffinity" }

// Filter is the required part.
type Filter struct{ Plugin }

// For implements scheduler.Filter.
func (Filter) For(pod *corev1.Pod, _ scheduler.View) scheduler.Fit {
	if len(pod.Spec.NodeSelector) == 0 && required(pod) == nil {
		return nil
	}
	affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
	return func(n *scheduler.Node) scheduler.Reason {
		if ok, _ := affinity.Match(n.Node); ok {
			return scheduler.OK
		}
		return scheduler.Reason{Text: "node(s) didn't match Pod's node affinity/selector", Final: true}
	}
}

// Helps implements scheduler.Filter.
func (Filter) Helps(pod *corev1.Pod, c scheduler.Change) bool {
	if c.Kind != scheduler.NodeAdded && c.Kind != scheduler.NodeLabels {
		return false
	}
	ok, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(c.Node)
	return ok
}

// Score is the preferred part.
type Score struct{ Plugin }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 2 }

// For implements scheduler.Score.
func (Score) For(pod *corev1.Pod, _ scheduler.View, _ []*scheduler.Node) scheduler.Rating {
	if a := pod.Spec.Affinity; a == nil || a.NodeAffinity == nil || len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return nil
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(pod.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return nil // validation let no such pod in
	}
	return rating{terms}
}

type rating struct {
	terms *nodeaffinity.PreferredSchedulingTerms
}

func (r rating) Rate(n *scheduler.Node) int64 { return r.terms.Score(n.Node) }

func (rating) Normalise(scores []int64) { scheduler.Linear(scores, false) }

func required(pod *corev1.Pod) *corev1.NodeSelector {
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	return nil
}
