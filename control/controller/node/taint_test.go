package node

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Taints come in the order of the conditions, others' stay where they are, and who
// evicts comes last.
func TestWantedTaints(t *testing.T) {
	now := time.Now()
	for _, c := range []struct{ conditions, have, evict, want string }{
		{"MemoryPressure=Unknown Ready=Unknown", "", "", "unreachable:NoSchedule"},
		{"MemoryPressure=Unknown Ready=Unknown", "", corev1.TaintNodeUnreachable, "unreachable:NoSchedule unreachable:NoExecute"},
		{"PIDPressure=True MemoryPressure=True Ready=False", "", "", "pid-pressure:NoSchedule memory-pressure:NoSchedule not-ready:NoSchedule"},
		{"Ready=False", "unreachable:NoExecute mine:NoExecute unreachable:NoSchedule", corev1.TaintNodeNotReady, "mine:NoExecute not-ready:NoSchedule not-ready:NoExecute"},
		{"Ready=True", "mine:NoSchedule not-ready:NoSchedule not-ready:NoExecute", "", "mine:NoSchedule"},
		{"Ready=True DiskPressure=True", "unschedulable:NoSchedule disk-pressure:NoExecute", "", "disk-pressure:NoExecute disk-pressure:NoSchedule"},
	} {
		node := &corev1.Node{}
		for _, w := range strings.Fields(c.conditions) {
			kind, status, _ := strings.Cut(w, "=")
			node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeConditionType(kind), Status: corev1.ConditionStatus(status)})
		}
		for _, w := range strings.Fields(c.have) {
			key, effect, _ := strings.Cut(w, ":")
			node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: "node.kubernetes.io/" + key, Effect: corev1.TaintEffect(effect)})
		}
		var got []string
		for _, taint := range wantedTaints(node, c.evict, now) {
			got = append(got, strings.TrimPrefix(taint.Key, "node.kubernetes.io/")+":"+string(taint.Effect))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s with %q: %q, want %q", c.conditions, c.have, got, c.want)
		}
	}
}
