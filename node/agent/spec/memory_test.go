package spec

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestMemoryQoS: what the kernel is told of a container's and of its pod's memory.
func TestMemoryQoS(t *testing.T) {
	need := func(request, limit string) corev1.ResourceRequirements {
		r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
		if request != "" {
			r.Requests[corev1.ResourceMemory], r.Requests[corev1.ResourceCPU] = resource.MustParse(request), resource.MustParse("1")
		}
		if limit != "" {
			r.Limits[corev1.ResourceMemory], r.Limits[corev1.ResourceCPU] = resource.MustParse(limit), resource.MustParse("1")
		}
		return r
	}
	both, none := MemoryQoS{Throttle: 0.9, Reserve: true}, MemoryQoS{}
	whole := need("100Ki", "200Ki")
	for _, c := range []struct {
		name       string
		qos        MemoryQoS
		own        corev1.ResourceRequirements
		whole      *corev1.ResourceRequirements
		want, pods string
	}{
		{"nothing is asked for", none, need("100Ki", "200Ki"), nil, "map[]", "map[]"},
		{"best effort, up to what pods may have", both, need("", ""), nil, "map[memory.high:921600]", "map[]"},
		{"burstable", both, need("100Ki", "200Ki"), nil, "map[memory.high:192512 memory.low:102400]", "map[memory.low:102400]"},
		{"burstable without a limit", both, need("100Ki", ""), nil, "map[memory.high:929792 memory.low:102400]", "map[memory.low:102400]"},
		{"guaranteed", both, need("100Ki", "100Ki"), nil, "map[memory.min:102400]", "map[memory.min:102400]"},
		{"throttled alone", MemoryQoS{Throttle: 0.5}, need("100Ki", "200Ki"), nil, "map[memory.high:151552]", "map[]"},
		{"reserved alone", MemoryQoS{Reserve: true}, need("100Ki", "200Ki"), nil, "map[memory.low:102400]", "map[memory.low:102400]"},
		{"no room between", both, need("100Ki", "101Ki"), nil, "map[memory.low:102400]", "map[memory.low:102400]"},
		{"a pod with a limit of its own", both, need("", ""), &whole, "map[]", "map[memory.high:192512 memory.low:102400]"},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Resources: c.whole, Containers: []corev1.Container{{Name: "a", Resources: c.own}}}}
		node := Node{MemoryQoS: c.qos, Allocatable: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1000Ki")}}
		if got := fmt.Sprint(ContainerResources(pod, &pod.Spec.Containers[0], node).Unified); got != c.want {
			t.Errorf("%s: container %s, want %s", c.name, got, c.want)
		}
		if got := fmt.Sprint(PodResources(pod, node).Unified); got != c.pods {
			t.Errorf("%s: pod %s, want %s", c.name, got, c.pods)
		}
	}
}
