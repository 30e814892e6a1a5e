package admit

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func podWith(change func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	change(&p.Spec)
	return p
}

func requests(name corev1.ResourceName, q string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.Containers[0].Resources.Requests = corev1.ResourceList{name: resource.MustParse(q)}
	}
}

func hostPort(p corev1.ContainerPort) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) { s.Containers[0].Ports = []corev1.ContainerPort{p} }
}

func confine(how corev1.AppArmorProfileType) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.InitContainers = []corev1.Container{{SecurityContext: &corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: how}}}}
	}
}

func TestPod(t *testing.T) {
	node := Node{
		Node: &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"zone": "a"}},
			Status:     corev1.NodeStatus{Allocatable: corev1.ResourceList{"example.com/fake": resource.MustParse("3")}},
			Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "t", Value: "v", Effect: corev1.TaintEffectNoExecute}, {Key: "s", Effect: corev1.TaintEffectNoSchedule}}},
		},
		Allocatable: corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("1Gi"), "pods": resource.MustParse("3")},
		Pods: []*corev1.Pod{podWith(requests("cpu", "1500m")),
			podWith(hostPort(corev1.ContainerPort{HostPort: 80, HostIP: "10.0.0.1", Protocol: corev1.ProtocolTCP}))},
	}
	tolerate := func(more func(*corev1.PodSpec)) *corev1.Pod {
		return podWith(func(s *corev1.PodSpec) {
			s.Tolerations = []corev1.Toleration{{Key: "t", Value: "v", Effect: corev1.TaintEffectNoExecute}}
			more(s)
		})
	}
	where := node
	where.AppArmor = true
	if r := Pod(tolerate(confine(corev1.AppArmorProfileTypeLocalhost)), where); r != nil {
		t.Errorf("a pod to confine where AppArmor is: %v", r)
	}
	no := false
	for name, c := range map[string]struct {
		pod             *corev1.Pod
		reason, message string
	}{
		"fits":       {tolerate(requests("cpu", "500m")), "", ""},
		"too much":   {tolerate(requests("cpu", "501m")), "OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"},
		"no such":    {tolerate(requests("example.com/gpu", "1")), "", ""}, // somebody else counts it
		"advertised": {tolerate(requests("example.com/fake", "3")), "", ""},
		"too many":   {tolerate(requests("example.com/fake", "4")), "OutOfexample.com/fake", "Pod was rejected: Node didn't have enough resource: example.com/fake, requested: 4, used: 0, capacity: 3"},
		"elsewhere":  {tolerate(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"zone": "b"} }), "NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		"here":       {tolerate(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"zone": "a"} }), "", ""},
		"port taken": {tolerate(hostPort(corev1.ContainerPort{HostPort: 80})), "NodePorts", "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		"other addr": {tolerate(hostPort(corev1.ContainerPort{HostPort: 80, HostIP: "10.0.0.2"})), "", ""},
		"udp":        {tolerate(hostPort(corev1.ContainerPort{HostPort: 80, Protocol: corev1.ProtocolUDP})), "", ""},
		"confined":   {tolerate(confine(corev1.AppArmorProfileTypeRuntimeDefault)), "AppArmor", "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host"},
		"unconfined": {tolerate(confine(corev1.AppArmorProfileTypeUnconfined)), "", ""},
		"tainted":    {podWith(func(*corev1.PodSpec) {}), "TaintToleration", "Pod was rejected: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"},
		"bad sysctl": {tolerate(func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.panic", Value: "1"}}}
		}), "SysctlForbidden", `Pod was rejected: forbidden sysctl: "kernel.panic" not allowlisted`},
		"good sysctl": {tolerate(func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net/ipv4/tcp_syncookies", Value: "1"}}}
		}), "", ""},
		"user ns": {tolerate(func(s *corev1.PodSpec) { s.HostUsers = &no }), "", ""},
	} {
		got := Pod(c.pod, node)
		if got == nil {
			got = &Refusal{}
		}
		if got.Reason != c.reason || got.Message != c.message {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// What a driver has for a container is not asked of the node.
	drivers := tolerate(requests("deviceclass.resource.kubernetes.io/gpu", "1"))
	if got := Pod(drivers, node); got == nil || got.Reason != "OutOfdeviceclass.resource.kubernetes.io/gpu" {
		t.Errorf("a device that nobody has: %+v", got)
	}
	drivers.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "made",
		RequestMappings: []corev1.ContainerExtendedResourceRequest{{ContainerName: drivers.Spec.Containers[0].Name, ResourceName: "deviceclass.resource.kubernetes.io/gpu", RequestName: "r"}}}
	if got := Pod(drivers, node); got != nil {
		t.Errorf("a device that a claim stands for: %+v", got)
	}
	drivers.Status.ExtendedResourceClaimStatus.RequestMappings[0].ContainerName = "another"
	if got := Pod(drivers, node); got == nil {
		t.Error("a device that a claim stands for in another container came in")
	}
	node.Pods = append(node.Pods, podWith(func(*corev1.PodSpec) {}))
	if got := Pod(tolerate(func(*corev1.PodSpec) {}), node); got == nil || got.Reason != "OutOfpods" {
		t.Errorf("a fourth pod of three: %+v", got)
	}
}

// TestVictims: a critical pod takes the place of as few others as will do, the
// least sure of theirs first, and never that of another critical one.
func TestVictims(t *testing.T) {
	mk := func(name, cpu, memory string, limited bool, priority int32) *corev1.Pod {
		r := corev1.ResourceList{}
		if cpu != "" {
			r[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			r[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		c := corev1.Container{Name: "c", Resources: corev1.ResourceRequirements{Requests: r}}
		if limited {
			c.Resources.Limits = r
		}
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{c}}}
	}
	const critical = 2_000_000_000
	node := Node{
		Node:        &corev1.Node{},
		Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("10")},
		Pods: []*corev1.Pod{
			mk("idle", "", "", false, 0), mk("small", "500m", "1Gi", false, 0), mk("large", "2", "1Gi", false, 0),
			mk("sure", "1", "1Gi", true, 0), mk("vital", "500m", "512Mi", true, critical),
		},
	}
	for _, c := range []struct {
		pod  *corev1.Pod
		want string
		ok   bool
	}{
		{mk("plain", "1", "", false, 0), "", false},
		{mk("key", "300m", "", false, critical), "small", true},
		{mk("key", "1", "", false, critical), "large", true},
		{mk("key", "3", "", false, critical), "large sure", true},
		{mk("key", "4", "", false, critical), "", false},
		{mk("key", "3500m", "", false, critical), "large small sure", true},
	} {
		got, ok := Victims(c.pod, node)
		var names []string
		for _, p := range got {
			names = append(names, p.Name)
		}
		if strings.Join(names, " ") != c.want || ok != c.ok {
			t.Errorf("%s %s: %v %v, want %q %v", c.pod.Name, c.pod.Spec.Containers[0].Resources.Requests.Cpu(), names, ok, c.want, c.ok)
		}
	}
}

// TestPressure: who may still come to a node that is short of something.
func TestPressure(t *testing.T) {
	node := Node{Node: &corev1.Node{}, Pressures: []corev1.NodeConditionType{corev1.NodeMemoryPressure}}
	idle := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	if r := Pod(idle, node); r == nil || r.Reason != "Evicted" || r.Said() != "The node had condition: [MemoryPressure]. " {
		t.Errorf("best-effort: %+v", r)
	}
	asking := idle.DeepCopy()
	asking.Status.QOSClass = corev1.PodQOSBurstable
	tolerant := idle.DeepCopy()
	tolerant.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
	for _, p := range []*corev1.Pod{asking, tolerant} {
		if r := Pod(p, node); r != nil {
			t.Errorf("%+v is kept out of a node short of memory", p.Spec)
		}
		if r := Pod(p, Node{Node: node.Node, Pressures: []corev1.NodeConditionType{corev1.NodeDiskPressure}}); r == nil {
			t.Errorf("%+v comes to a node short of disk", p.Spec)
		}
	}
}
