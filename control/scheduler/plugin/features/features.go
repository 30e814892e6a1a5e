// Package features keeps pods to the nodes that declare the features which the pods
// need: upstream's NodeDeclaredFeatures (KEP-5328). Which pod needs what is said by
// k8s.io/component-helpers/nodedeclaredfeatures.
package features

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Filter is the plugin.
type Filter struct{}

// Name implements scheduler.Filter.
func (Filter) Name() string { return "NodeDeclaredFeatures" }

// Depends implements scheduler.Filter. It is about the node alone, but upstream asks
// it after the others, and the first refusal is the one that is told; few pods need a
// feature.
func (Filter) Depends() scheduler.Dependence { return scheduler.OnCluster }

// For implements scheduler.Filter.
func (Filter) For(pod *corev1.Pod, _ scheduler.View) scheduler.Fit {
	needed := needs(pod)
	if len(needed) == 0 {
		return nil
	}
	return func(n *scheduler.Node) scheduler.Reason {
		for _, name := range needed {
			if !slices.Contains(n.Status.DeclaredFeatures, name) {
				return scheduler.Reason{Text: "node(s) didn't match Pod's required features", Final: true}
			}
		}
		return scheduler.OK
	}
}

// needs are the features that a pod's definition asks for.
func needs(pod *corev1.Pod) []string {
	all := nodedeclaredfeatures.DefaultFramework
	set, err := all.InferForPodScheduling(&nodedeclaredfeatures.PodInfo{Spec: &pod.Spec}, version.MajorMinor(1, 37))
	if err != nil || set.IsEmpty() {
		return nil
	}
	names, err := all.Unmap(set)
	if err != nil {
		return nil // the set is of the same registry
	}
	return names
}

// Heeds implements scheduler.Filter.
func (Filter) Heeds() scheduler.ChangeKind { return scheduler.NodeAdded | scheduler.NodeFeatures }

// Helps implements scheduler.Filter.
func (f Filter) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	return c.Became(f.For(pod, v))
}
