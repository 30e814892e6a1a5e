// Package unschedulable keeps pods off cordoned nodes.
package unschedulable

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Filter is upstream's NodeUnschedulable.
type Filter struct{}

// Name implements scheduler.Filter.
func (Filter) Name() string { return "NodeUnschedulable" }

// Depends implements scheduler.Filter.
func (Filter) Depends() scheduler.Dependence { return scheduler.OnNode }

// Heeds implements scheduler.Filter.
func (Filter) Heeds() scheduler.ChangeKind { return scheduler.NodeAdded | scheduler.NodeTaints }

// For implements scheduler.Filter. A pod that tolerates the taint which a cordon
// sets may go there all the same (DaemonSets do).
func (Filter) For(pod *corev1.Pod, _ scheduler.View) scheduler.Fit {
	for _, t := range pod.Spec.Tolerations {
		if t.ToleratesTaint(klog.Logger{}, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}, false) {
			return nil
		}
	}
	return func(n *scheduler.Node) scheduler.Reason {
		if !n.Spec.Unschedulable {
			return scheduler.OK
		}
		return scheduler.Reason{Text: "node(s) were unschedulable", Final: true}
	}
}

// Helps implements scheduler.Filter.
func (f Filter) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	return c.Became(f.For(pod, v))
}
