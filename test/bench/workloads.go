package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// workload is one of upstream's (test/integration/scheduler_perf), with its name,
// its numbers and the pods/s that upstream's CI insists on.
type workload struct {
	name  string
	nodes int
	floor float64
	// zones are given to the nodes in turn.
	zones []string
	// named is a node beside the others, for pods that ask for it.
	named string
	// namespaces that are there, with these labels.
	namespaces []string
	labels     map[string]string
	init       []step
	measured   step
	// apart says that no two of its pods fit on one node.
	apart bool
	// churn goes on beside the measuring.
	churn func(ctx context.Context, a *arena)
}

// step is some pods to be made.
type step struct {
	pods       int
	namespaces []string
	template   func(namespace string) *corev1.Pod
}

var inDefault = []string{metav1.NamespaceDefault}

// two are the namespaces that upstream's affinity templates name.
var two = []string{"sched-0", "sched-1"}

func workloads() []workload {
	moons := []string{"moon-1", "moon-2", "moon-3"}
	basic := func(n int) []step { return []step{{n, inDefault, plainPod("100m")}} }
	pair := func(name string, floor float64, init, pods int, zones []string, template func(string) *corev1.Pod) workload {
		return workload{
			name: name, nodes: 5000, floor: floor, zones: zones, namespaces: two,
			init: []step{{init, two[:1], template}}, measured: step{pods, two[1:], template},
		}
	}
	return []workload{
		{name: "SchedulingBasic", nodes: 5000, floor: 680, init: basic(1000), measured: step{10000, inDefault, plainPod("100m")}},
		pair("SchedulingPodAntiAffinity", 180, 1000, 2000, nil, affinePod("green", corev1.LabelHostname, true, false, nil)),
		pair("SchedulingPodAffinity", 70, 5000, 5000, []string{"zone1"}, affinePod("blue", corev1.LabelTopologyZone, false, false, nil)),
		pair("SchedulingPreferredPodAffinity", 160, 5000, 5000, nil, affinePod("red", corev1.LabelHostname, false, true, nil)),
		pair("SchedulingPreferredPodAntiAffinity", 190, 5000, 5000, nil, affinePod("yellow", corev1.LabelHostname, true, true, nil)),
		{name: "SchedulingNodeAffinity", nodes: 5000, floor: 540, zones: []string{"zone1"},
			init: []step{{5000, inDefault, zonePod}}, measured: step{10000, inDefault, zonePod}},
		selecting("SchedulingRequiredPodAntiAffinityWithNSSelector", 6000, 140, 40, affinePod("green", corev1.LabelHostname, true, false, devops)),
		{name: "TopologySpreading", nodes: 5000, floor: 460, zones: moons, init: basic(5000),
			measured: step{5000, inDefault, spreadPod(corev1.DoNotSchedule)}},
		{name: "PreferredTopologySpreading", nodes: 5000, floor: 340, zones: moons, init: basic(5000),
			measured: step{5000, inDefault, spreadPod(corev1.ScheduleAnyway)}},
		{name: "PreemptionAsync", nodes: 5000, floor: 570, init: []step{{20000, inDefault, plainPod("900m")}},
			measured: step{5000, inDefault, plainPod("100m")}, churn: every(200*time.Millisecond, importantPod("3"))},
		{name: "Unschedulable", nodes: 5000, floor: 590, measured: step{10000, inDefault, plainPod("100m")},
			churn: every(200*time.Millisecond, importantPod("9"))},
		{name: "SchedulingDaemonset", nodes: 15000, floor: 1100, named: "scheduler-perf-node", measured: step{30000, inDefault, daemonPod}},
		{name: "SchedulingWithMixedChurn", nodes: 5000, floor: 710, measured: step{10000, inDefault, plainPod("100m")}, churn: mixedChurn},
	}
}

var devops = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "devops"}}

// selecting is a workload whose pods select namespaces: 100 are there.
func selecting(name string, nodes int, floor float64, each int, template func(string) *corev1.Pod) workload {
	w := workload{name: name, nodes: nodes, floor: floor, labels: devops.MatchLabels, apart: true}
	for i := range 100 {
		w.namespaces = append(w.namespaces, fmt.Sprintf("init-ns-%d", i))
	}
	w.init = []step{{each * 100, w.namespaces, template}}
	w.namespaces = append(w.namespaces, "measure-ns-0")
	w.measured = step{2000, w.namespaces[100:], template}
	return w
}

// prepare makes nodes and namespaces.
func (w workload) prepare(ctx context.Context, a *arena) error {
	if err := a.namespace(ctx, metav1.NamespaceDefault, nil); err != nil {
		return err
	}
	for _, name := range w.namespaces {
		if err := a.namespace(ctx, name, w.labels); err != nil {
			return err
		}
	}
	if w.named != "" {
		n := benchNode(w.named, nil)
		n.Status.Capacity[corev1.ResourcePods] = resource.MustParse("90000")
		if err := a.node(ctx, n); err != nil {
			return err
		}
	}
	return each(ctx, w.nodes, func(ctx context.Context, i int) error {
		labels := map[string]string{}
		if len(w.zones) > 0 {
			labels[corev1.LabelTopologyZone] = w.zones[i%len(w.zones)]
		}
		return a.node(ctx, benchNode(fmt.Sprintf("scheduler-perf-%05d", i), labels))
	})
}

// node makes a node that is ready.
func (a *arena) node(ctx context.Context, n *corev1.Node) error {
	n.Labels[corev1.LabelHostname] = n.Name
	n.Status.Allocatable = n.Status.Capacity
	made, err := client.Nodes.Create(ctx, a, n)
	if err != nil || len(made.Spec.Taints) == 0 {
		return err
	}
	ready := made.DeepCopy()
	ready.Spec.Taints = nil // new nodes are not ready, admission says; here nobody else would tell
	_, err = client.Nodes.Update(ctx, a, ready)
	return err
}

func benchNode(name string, labels map[string]string) *corev1.Node {
	if labels == nil {
		labels = map[string]string{}
	}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	n.Status.Capacity = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return n
}

func basePod(namespace, cpu string) *corev1.Pod {
	amounts := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("500Mi")}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "pause", Image: "registry.k8s.io/pause:3.10.2", Ports: []corev1.ContainerPort{{ContainerPort: 80}},
		Resources: corev1.ResourceRequirements{Limits: amounts, Requests: amounts},
	}}}}
}

func plainPod(cpu string) func(string) *corev1.Pod {
	return func(namespace string) *corev1.Pod { return basePod(namespace, cpu) }
}

// affinePod has one term about pods of its color.
func affinePod(color, key string, anti, soft bool, namespaces *metav1.LabelSelector) func(string) *corev1.Pod {
	return func(namespace string) *corev1.Pod {
		p := basePod(namespace, "100m")
		p.Labels = map[string]string{"color": color}
		t := corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}, NamespaceSelector: namespaces}
		if namespaces == nil {
			t.Namespaces = two
		}
		hard, weak := []corev1.PodAffinityTerm{t}, []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: t}}
		if soft {
			hard = nil
		} else {
			weak = nil
		}
		p.Spec.Affinity = &corev1.Affinity{}
		if anti {
			p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: hard, PreferredDuringSchedulingIgnoredDuringExecution: weak,
			}
		} else {
			p.Spec.Affinity.PodAffinity = &corev1.PodAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: hard, PreferredDuringSchedulingIgnoredDuringExecution: weak,
			}
		}
		return p
	}
}

func nodeTerm(t corev1.NodeSelectorTerm) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{t}},
	}}
}

func zonePod(namespace string) *corev1.Pod {
	p := basePod(namespace, "100m")
	p.Spec.Affinity = nodeTerm(corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
		{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"zone1", "zone2"}},
	}})
	return p
}

func daemonPod(namespace string) *corev1.Pod {
	p := basePod(namespace, "0")
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{}
	p.Spec.Affinity = nodeTerm(corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
		{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{"scheduler-perf-node"}},
	}})
	return p
}

func spreadPod(when corev1.UnsatisfiableConstraintAction) func(string) *corev1.Pod {
	return func(namespace string) *corev1.Pod {
		p := basePod(namespace, "100m")
		p.Labels = map[string]string{"color": "blue"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: when, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels},
		}}
		return p
	}
}

// importantPod outranks the others; its class is made by the workload.
func importantPod(cpu string) func(string) *corev1.Pod {
	return func(namespace string) *corev1.Pod {
		p := basePod(namespace, cpu)
		p.Annotations = map[string]string{"churn": "yes"}
		p.Spec.PriorityClassName = "important"
		return p
	}
}
