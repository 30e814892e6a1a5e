package spec

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// quantities reads "cpu=1 memory=64Mi".
func quantities(text string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, f := range strings.Fields(text) {
		name, value, _ := strings.Cut(f, "=")
		list[corev1.ResourceName(name)] = resource.MustParse(value)
	}
	return list
}

func need(requests, limits string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: quantities(requests), Limits: quantities(limits)}
}

// TestPodLevelResources: a node of 1000 MiB with huge pages, a pod of two containers
// and a sidecar, and what the first one is given.
func TestPodLevelResources(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	node := Node{Memory: 1000 << 20, PageSizes: PageSizes(quantities("cpu=2 hugepages-1Gi=0 hugepages-2Mi=8Mi"))}
	for _, c := range []struct {
		name            string
		whole           corev1.ResourceRequirements
		a, b, side      corev1.ResourceRequirements
		qos             corev1.PodQOSClass
		first, sidecars string
	}{
		{"no limit of its own", need("cpu=500m memory=300Mi", "cpu=1 memory=400Mi"), need("", ""), need("", ""), need("", ""), corev1.PodQOSBurstable,
			"shares 1024 quota 100000 memory 400Mi oom 900 pages [2MB:0 1GB:0]", "oom 900"},
		{"limits of its own", need("cpu=500m memory=300Mi", "cpu=1 memory=400Mi"), need("cpu=100m memory=100Mi", "cpu=200m memory=200Mi"), need("", ""), need("", ""),
			corev1.PodQOSBurstable, "shares 102 quota 20000 memory 200Mi oom 834 pages [2MB:0 1GB:0]", "oom 934"},
		{"guaranteed as a whole", need("cpu=1 memory=400Mi", "cpu=1 memory=400Mi"), need("cpu=100m", ""), need("", ""), need("", ""), corev1.PodQOSGuaranteed,
			"shares 102 quota 100000 memory 400Mi oom -997 pages [2MB:0 1GB:0]", "oom -997"},
		{"huge pages of the pod", need("cpu=1 hugepages-2Mi=4Mi", "cpu=1 hugepages-2Mi=4Mi"), need("", ""), need("", ""), need("", ""), corev1.PodQOSBurstable,
			"shares 1024 quota 100000 memory 0 oom 999 pages [2MB:4194304 1GB:0]", "oom 999"},
		{"huge pages of its own", need("cpu=1 hugepages-2Mi=4Mi", "cpu=1 hugepages-2Mi=4Mi"), need("hugepages-2Mi=2Mi", "hugepages-2Mi=2Mi"), need("", ""), need("", ""),
			corev1.PodQOSBurstable, "shares 1024 quota 100000 memory 0 oom 999 pages [2MB:2097152 1GB:0]", "oom 999"},
		{"no pod level", corev1.ResourceRequirements{}, need("memory=100Mi", ""), need("memory=200Mi", ""), need("memory=50Mi", ""), corev1.PodQOSBurstable,
			"shares 2 quota 0 memory 0 oom 900 pages [2MB:0 1GB:0]", "oom 900"},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{
			Resources:      &c.whole,
			InitContainers: []corev1.Container{{Name: "s", RestartPolicy: &always, Resources: c.side}},
			Containers:     []corev1.Container{{Name: "a", Resources: c.a}, {Name: "b", Resources: c.b}},
		}}
		if got := QoS(pod); got != c.qos {
			t.Errorf("%s: class %s, want %s", c.name, got, c.qos)
		}
		r := ContainerResources(pod, &pod.Spec.Containers[0], node)
		pages := []string{}
		for _, h := range r.HugepageLimits {
			pages = append(pages, fmt.Sprintf("%s:%d", h.PageSize, h.Limit))
		}
		memory := resource.NewQuantity(r.MemoryLimitInBytes, resource.BinarySI)
		got := fmt.Sprintf("shares %d quota %d memory %s oom %d pages %v", r.CpuShares, r.CpuQuota, memory, r.OomScoreAdj, pages)
		if got != c.first {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.first)
		}
		if got := fmt.Sprintf("oom %d", OOMScore(pod, &pod.Spec.InitContainers[0], node.Memory)); got != c.sidecars {
			t.Errorf("%s: sidecar %s, want %s", c.name, got, c.sidecars)
		}
	}
}

// TestNodeCritical: the class and the priority together spare a pod, not one alone.
func TestNodeCritical(t *testing.T) {
	high := int32(systemCritical)
	for name, c := range map[string]struct {
		class    string
		priority *int32
		source   string
		want     int64
	}{
		"the cluster's":       {"system-cluster-critical", &high, "", 1000},
		"the node's":          {nodeCritical, &high, "", oomGuaranteed},
		"the name alone":      {nodeCritical, nil, "", 1000},
		"static, by its name": {nodeCritical, nil, "file", oomGuaranteed},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{PriorityClassName: c.class, Priority: c.priority, Containers: []corev1.Container{{}}}}
		pod.Annotations = map[string]string{"kubernetes.io/config.source": c.source}
		if got := OOMScore(pod, &pod.Spec.Containers[0], 1<<30); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
