package node

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/internal/target"
)

// meaning is the taint that a condition's status stands for.
type meaning struct {
	condition corev1.NodeConditionType
	status    corev1.ConditionStatus
	key       string
}

var byCondition = []meaning{
	{corev1.NodeReady, corev1.ConditionFalse, corev1.TaintNodeNotReady},
	{corev1.NodeReady, corev1.ConditionUnknown, corev1.TaintNodeUnreachable},
	{corev1.NodeMemoryPressure, corev1.ConditionTrue, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.ConditionTrue, corev1.TaintNodeDiskPressure},
	{corev1.NodeNetworkUnavailable, corev1.ConditionTrue, corev1.TaintNodeNetworkUnavailable},
	{corev1.NodePIDPressure, corev1.ConditionTrue, corev1.TaintNodePIDPressure},
}

// evicting says why a node's pods should leave: the key of its NoExecute taint,
// "" when they need not.
func evicting(node *corev1.Node) string {
	c := conditionOf(&node.Status, corev1.NodeReady)
	switch {
	case c == nil || c.Status == corev1.ConditionTrue:
		return ""
	case c.Status == corev1.ConditionUnknown:
		return corev1.TaintNodeUnreachable
	}
	return corev1.TaintNodeNotReady
}

// wantedTaints is the node's list as it should be: others' taints untouched, the
// controller's own by the conditions, and the NoExecute one for evict, if any. New ones
// come last, in upstream's order: that of the conditions, and then who evicts.
func wantedTaints(node *corev1.Node, evict string, now time.Time) []corev1.Taint {
	want := []corev1.Taint{}
	for _, c := range node.Status.Conditions {
		for _, row := range byCondition {
			if c.Type == row.condition && c.Status == row.status {
				want = append(want, corev1.Taint{Key: row.key, Effect: corev1.TaintEffectNoSchedule})
			}
		}
	}
	if node.Spec.Unschedulable {
		want = append(want, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	if evict != "" {
		want = append(want, corev1.Taint{Key: evict, Effect: corev1.TaintEffectNoExecute})
	}
	var taints []corev1.Taint
	for _, t := range node.Spec.Taints {
		i := slices.IndexFunc(want, func(w corev1.Taint) bool { return t.MatchTaint(&w) })
		if own(t) && i < 0 {
			continue
		}
		taints = append(taints, t)
		if i >= 0 {
			want = slices.Delete(want, i, i+1)
		}
	}
	for _, t := range want {
		stamp := metav1.NewTime(now)
		t.TimeAdded = &stamp
		taints = append(taints, t)
	}
	return taints
}

// own says whether a taint is this controller's to add and remove.
func own(t corev1.Taint) bool {
	switch t.Effect {
	case corev1.TaintEffectNoExecute:
		return t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
	case corev1.TaintEffectNoSchedule:
		return t.Key == corev1.TaintNodeUnschedulable ||
			slices.ContainsFunc(byCondition, func(m meaning) bool { return m.key == t.Key })
	}
	return false
}

// taint brings the node's taints in line; wait > 0 says when an eviction that
// has to wait its turn may start.
func (c *Controller) taint(ctx context.Context, node *corev1.Node, health state, now time.Time) (wait time.Duration, err error) {
	evict := evicting(node)
	if evict != "" && !evicted(node) { // one taint is swapped for the other at once
		if allowed, in := c.zones.admit(node, health, now); !allowed {
			evict, wait = "", in
		}
	}
	if health.cutOff {
		evict = ""
	}
	taints := wantedTaints(node, evict, now)
	if slices.EqualFunc(taints, node.Spec.Taints, func(a, b corev1.Taint) bool { return a.Key == b.Key && a.Effect == b.Effect && a.Value == b.Value }) {
		return wait, nil
	}
	if taints == nil {
		taints = []corev1.Taint{}
	}
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion, "uid": node.UID},
		"spec":     map[string]any{"taints": taints},
	})
	if err != nil {
		return 0, fmt.Errorf("encode taints: %w", err)
	}
	at := target.Of(client.Nodes.GroupVersionResource, "").Object(node.Name)
	if _, err := client.Nodes.Patch(ctx, c.transport, at, client.Patch{Type: types.MergePatchType, Data: data}); err != nil {
		return 0, fmt.Errorf("taint node %q: %w", node.Name, err)
	}
	if evict != "" && !evicted(node) {
		measure.From(ctx).NodeEvicted(zoneKey(zoneOf(node)))
	}
	return wait, nil
}

// evicted says whether the node's pods have been told to leave already.
func evicted(node *corev1.Node) bool {
	return has(node, corev1.TaintNodeNotReady) || has(node, corev1.TaintNodeUnreachable)
}

func has(node *corev1.Node, key string) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key == key && t.Effect == corev1.TaintEffectNoExecute
	})
}
