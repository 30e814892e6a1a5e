package spec

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestSwap: what a container may swap out, on a node whose pods may swap 500Ki of its
// 1000Ki of memory, or nothing.
func TestSwap(t *testing.T) {
	both := func(request, limit string) corev1.ResourceRequirements {
		r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
		for list, v := range map[*corev1.ResourceList]string{&r.Requests: request, &r.Limits: limit} {
			if v != "" {
				(*list)[corev1.ResourceMemory], (*list)[corev1.ResourceCPU] = resource.MustParse(v), resource.MustParse("1")
			}
		}
		return r
	}
	const swap = 500 << 10
	for _, c := range []struct {
		name     string
		swap     int64
		own      corev1.ResourceRequirements
		critical bool
		want     string
		limit    int64
	}{
		{"no swap, best effort", 0, both("", ""), false, "0", 0},
		{"no swap, no limit", 0, both("100Ki", ""), false, "0", 0},
		{"no swap, a limit", 0, both("100Ki", "200Ki"), false, "0", 200 << 10},
		{"best effort", swap, both("", ""), false, "0", 0},
		{"burstable, no limit", swap, both("100Ki", ""), false, "51200", 0},
		{"burstable", swap, both("100Ki", "200Ki"), false, "51200", 250 << 10},
		{"burstable and critical", swap, both("100Ki", "200Ki"), true, "0", 200 << 10},
		{"guaranteed", swap, both("100Ki", "100Ki"), false, "0", 100 << 10},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Resources: c.own}}}}
		if c.critical {
			pod.Spec.PriorityClassName, pod.Spec.Priority = "system-node-critical", new(int32(2_000_001_000))
		}
		node := Node{Memory: 1000 << 10, Swap: c.swap, BoundsSwap: true}
		r := ContainerResources(pod, &pod.Spec.Containers[0], node)
		if got := r.GetUnified()["memory.swap.max"]; got != c.want || r.GetMemorySwapLimitInBytes() != c.limit {
			t.Errorf("%s: %q and %d, want %q and %d", c.name, got, r.GetMemorySwapLimitInBytes(), c.want, c.limit)
		}
		node.BoundsSwap = false
		if got, ok := ContainerResources(pod, &pod.Spec.Containers[0], node).GetUnified()["memory.swap.max"]; ok {
			t.Errorf("%s: a kernel that can't bound swap is told %q", c.name, got)
		}
	}
}
