package scheduler_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
)

// BenchmarkDecide measures decisions alone, one pod an iteration, with the pods of
// upstream's scheduler_perf on clusters of growing size: the cost should not grow.
func BenchmarkDecide(b *testing.B) {
	for _, shape := range []struct {
		name string
		make func(*corev1.Pod)
	}{
		{"basic", func(*corev1.Pod) {}},
		{"node-affinity", nodeAffinity},
		{"affinity", func(p *corev1.Pod) { affine(p, "blue", corev1.LabelTopologyZone, false, false) }},
		{"anti-affinity", func(p *corev1.Pod) { affine(p, "green", corev1.LabelHostname, true, false) }},
		{"preferred-affinity", func(p *corev1.Pod) { affine(p, "red", corev1.LabelHostname, false, true) }},
		{"preferred-anti-affinity", func(p *corev1.Pod) { affine(p, "yellow", corev1.LabelHostname, true, true) }},
		{"spreading", func(p *corev1.Pod) { spreadOver(p, corev1.DoNotSchedule) }},
		{"preferred-spreading", func(p *corev1.Pod) { spreadOver(p, corev1.ScheduleAnyway) }},
		{"small-deployments", deployed()},
		{"huge", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("9")
		}},
		{"anti-affinity-ns-selector", func(p *corev1.Pod) {
			affine(p, "green", corev1.LabelHostname, true, false)
			t := &p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0]
			t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "devops"}}
		}},
		{"daemonset", func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
					{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{"node-00001"}},
				}}},
			}}}
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
		}},
	} {
		for _, nodes := range []int{1000, 5000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", shape.name, nodes), func(b *testing.B) { decisions(b, nodes, shape.make) })
		}
	}
}

// decisions decides about b.N pods and reports the CPU time of each: the machine may
// be busy with other things.
func decisions(b *testing.B, nodes int, shape func(*corev1.Pod)) {
	var w *scheduler.World
	fill := func() {
		w = scheduler.NewWorld(profile.Default()[0])
		w.SetNamespace("default", map[string]string{"team": "devops"})
		w.SetSelector(func(p *corev1.Pod) labels.Selector {
			if app := p.Labels["app"]; app != "" {
				return labels.SelectorFromSet(labels.Set{"app": app})
			}
			return nil
		})
		for i := range nodes {
			w.SetNode(benchNode(i))
		}
		for i := range nodes / 5 {
			w.Put(benchPod(fmt.Sprint("init-", i), shape))
		}
	}
	fill()
	placed := nodes / 5
	pods := make([]*corev1.Pod, b.N)
	for i := range pods {
		pods[i] = benchPod(fmt.Sprint("pod-", i), shape)
	}
	runtime.GC()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ReportAllocs()
	b.ResetTimer()
	var used time.Duration
	start := threadTime()
	for _, p := range pods {
		if placed >= nodes*9/10 { // before hosts run out
			b.StopTimer()
			used += threadTime() - start
			fill()
			placed = nodes / 5
			start = threadTime()
			b.StartTimer()
		}
		w.Put(p)
		placed++
	}
	used += threadTime() - start
	b.ReportMetric(float64(used.Nanoseconds())/1000/float64(b.N), "cpu-µs/pod")
}

// threadTime is the CPU time that this thread has used.
func threadTime() time.Duration {
	var u syscall.Rusage
	const rusageThread = 1
	if err := syscall.Getrusage(rusageThread, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchNode(i int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%05d", i), UID: types.UID(fmt.Sprint("n", i)), Labels: map[string]string{
		corev1.LabelHostname: fmt.Sprintf("node-%05d", i), corev1.LabelTopologyZone: fmt.Sprint("zone", i%3+1),
	}}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	return n
}

func benchPod(name string, shape func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
	p.Spec.SchedulerName = corev1.DefaultSchedulerName
	p.Spec.Containers = []corev1.Container{{Name: "pause", Image: "registry.k8s.io/pause:3.10", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("500Mi")},
	}}}
	shape(p)
	return p
}

func nodeAffinity(p *corev1.Pod) {
	p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"zone1", "zone2"}},
		}}},
	}}}
}

// deployed makes pods of deployments of thirty: they are spread by the defaults, and each
// thirtieth is of a class of its own.
func deployed() func(*corev1.Pod) {
	made := 0
	return func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": fmt.Sprint(made / 30)}
		made++
	}
}

func affine(p *corev1.Pod, color, key string, anti, soft bool) {
	p.Labels = map[string]string{"color": color}
	t := corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}
	hard, weak := []corev1.PodAffinityTerm{t}, []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: t}}
	switch {
	case anti && soft:
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weak}}
	case anti:
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: hard}}
	case soft:
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weak}}
	default:
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: hard}}
	}
}

func spreadOver(p *corev1.Pod, when corev1.UnsatisfiableConstraintAction) {
	p.Labels = map[string]string{"color": "blue"}
	p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: when, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels},
	}}
}

// BenchmarkPreempt measures the search for a node to free when all are full.
func BenchmarkPreempt(b *testing.B) {
	for _, nodes := range []int{1000, 5000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			w := scheduler.NewWorld(profile.Default()[0])
			for i := range nodes {
				w.SetNode(benchNode(i))
				for j := range 4 {
					p := benchPod(fmt.Sprintf("low-%d-%d", i, j), func(p *corev1.Pod) {
						p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("900m")
					})
					w.Place(p, fmt.Sprintf("node-%05d", i))
				}
			}
			high := int32(10)
			boss := benchPod("boss", func(p *corev1.Pod) {
				p.Spec.Priority = &high
				p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("3")
			})
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if node, _, _ := w.Decide(boss).Preempt(nil); node == "" {
					b.Fatal("no room")
				}
			}
		})
	}
}
