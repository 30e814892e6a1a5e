// Package taints keeps pods off nodes whose taints they do not tolerate, and away
// from those that would rather not have them.
package taints

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Plugin is upstream's TaintToleration.
type Plugin struct{}

// Name implements scheduler.Filter and scheduler.Score.
func (Plugin) Name() string { return "TaintToleration" }

// Depends implements scheduler.Filter and scheduler.Score.
func (Plugin) Depends() scheduler.Dependence { return scheduler.OnNode }

// Heeds implements scheduler.Filter.
func (Plugin) Heeds() scheduler.ChangeKind { return scheduler.NodeAdded | scheduler.NodeTaints }

// Filter is the rule about NoSchedule and NoExecute taints.
type Filter struct{ Plugin }

// For implements scheduler.Filter.
func (Filter) For(pod *corev1.Pod, _ scheduler.View) scheduler.Fit {
	return func(n *scheduler.Node) scheduler.Reason {
		for i := range n.Spec.Taints {
			t := &n.Spec.Taints[i]
			if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(pod.Spec.Tolerations, t) {
				return scheduler.Reason{Text: "node(s) had untolerated taint(s)", Final: true}
			}
		}
		return scheduler.OK
	}
}

// Helps implements scheduler.Filter.
func (f Filter) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	return c.Became(f.For(pod, v))
}

// Score prefers nodes with few PreferNoSchedule taints that are not tolerated.
type Score struct{ Plugin }

// Weight implements scheduler.Score.
func (Score) Weight() int64 { return 3 }

// For implements scheduler.Score.
func (Score) For(pod *corev1.Pod, _ scheduler.View) scheduler.Rating { return rating{pod} }

type rating struct{ pod *corev1.Pod }

func (r rating) Rate(n *scheduler.Node) int64 { return intolerable(r.pod, n) }

func (rating) Normalise(_ []*scheduler.Node, scores []int64) { scheduler.Linear(scores, true) }

// intolerable counts the taints that advise against the node.
func intolerable(pod *corev1.Pod, n *scheduler.Node) (count int64) {
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(pod.Spec.Tolerations, t) {
			count++
		}
	}
	return count
}

func tolerates(tolerations []corev1.Toleration, t *corev1.Taint) bool {
	for i := range tolerations {
		if tolerations[i].ToleratesTaint(klog.Logger{}, t, false) {
			return true
		}
	}
	return false
}
