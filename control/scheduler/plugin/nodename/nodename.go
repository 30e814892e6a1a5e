// Package nodename lets a pod that asks for a node by name onto no other.
package nodename

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Filter is upstream's NodeName.
type Filter struct{}

// Name implements scheduler.Filter.
func (Filter) Name() string { return "NodeName" }

// Depends implements scheduler.Filter.
func (Filter) Depends() scheduler.Dependence { return scheduler.OnNode }

// Heeds implements scheduler.Filter.
func (Filter) Heeds() scheduler.ChangeKind { return scheduler.NodeAdded }

// For implements scheduler.Filter.
func (Filter) For(pod *corev1.Pod, _ scheduler.View) scheduler.Fit {
	if pod.Spec.NodeName == "" {
		return nil
	}
	return func(n *scheduler.Node) scheduler.Reason {
		if n.Name == pod.Spec.NodeName {
			return scheduler.OK
		}
		return scheduler.Reason{Text: "node(s) didn't match the requested node name", Final: true}
	}
}

// Helps implements scheduler.Filter.
func (f Filter) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	return c.Became(f.For(pod, v))
}
