package scheduler_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
)

// Of several filters that would refuse a node, the one that upstream asks first does.
func TestFirstRefusal(t *testing.T) {
	for _, c := range []struct {
		pod  string
		with func(p *corev1.Pod)
		want string
	}{
		{"p cpu=9", needsFeature, "NodeResourcesFit"},
		{"p near=app=x@zone", needsFeature, "InterPodAffinity"},
		{"p near=app=x@zone", needsClaim, "InterPodAffinity"},
		{"p", needsFeature, "NodeDeclaredFeatures"},
		{"p", needsClaim, "DynamicResources"},
	} {
		w := scheduler.NewWorld(profile.Default()[0])
		w.SetNode(node(t, strings.Fields("n label=zone=a")))
		w.Devices().SetClaim(nil, claimElsewhere("elsewhere"))
		p, _ := pod(t, strings.Fields(c.pod))
		c.with(p)
		d := w.Decide(p)
		if len(d.Refusals) != 1 || d.Refusals[0].Filter != c.want {
			t.Errorf("%s: refused by %+v, want %s", c.pod, d.Refusals, c.want)
		}
	}
}

func needsFeature(p *corev1.Pod) {
	no := false
	p.Spec.HostNetwork, p.Spec.HostUsers = true, &no
}

func needsClaim(p *corev1.Pod) { claimed(p, "elsewhere") }

func claimed(p *corev1.Pod, claim string) {
	p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: claim, ResourceClaimName: &claim})
}

// claimElsewhere has devices that no node of the tests can use.
func claimElsewhere(name string) *resourcev1.ResourceClaim {
	c := deviceClaim(name, true)
	c.UID = types.UID(name)
	c.Status.Allocation.NodeSelector = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"other"}}},
	}}}
	return c
}

// A claim gives its devices back when nothing else keeps its pod off the nodes.
func TestDevicesAreGivenBackForUse(t *testing.T) {
	for missing, want := range map[bool]string{false: "deallocation of ResourceClaim completed", true: ""} {
		rules := profile.Default()[0]
		w := scheduler.NewWorld(rules)
		w.SetNode(node(t, []string{"n"}))
		w.Devices().SetClass(nil, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpus"}})
		w.Devices().SetClaim(nil, claimElsewhere("elsewhere"))
		p, _ := pod(t, []string{"p"})
		needsClaim(p)
		if missing { // there is no such device at all
			other := deviceClaim("other", false)
			other.UID = "other"
			other.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{
				DeviceClassName: "gpus", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1,
			}}}
			w.Devices().SetClaim(nil, other)
			claimed(p, "other")
		}
		if d := w.Decide(p); d.Node != "" {
			t.Fatalf("missing %v: placed on %s", missing, d.Node)
		}
		for _, f := range rules.Filters {
			if remedy, ok := f.(scheduler.Remedy); ok {
				if _, text := remedy.Remedy(p, nil); text != want {
					t.Errorf("missing %v: %q, want %q", missing, text, want)
				}
			}
		}
	}
}

// A preemption tells what it has found; of equals, who has not started yet goes.
func TestPreemptionTells(t *testing.T) {
	w := scheduler.NewWorld(profile.Default()[0])
	w.SetNode(node(t, strings.Fields("n cpu=2")))
	begun, _ := pod(t, strings.Fields("begun cpu=1 prio=1"))
	begun.Status.StartTime = &metav1.Time{Time: time.Unix(1000, 0)}
	begun.CreationTimestamp = *begun.Status.StartTime
	waiting, _ := pod(t, strings.Fields("waiting cpu=1 prio=1")) // made long before
	waiting.CreationTimestamp = metav1.Time{Time: time.Unix(1, 0)}
	w.Place(begun, "n")
	w.Place(waiting, "n")
	p, _ := pod(t, strings.Fields("p cpu=1 prio=5"))
	_, victims, text := w.Decide(p).Preempt(nil)
	if strings.Join(victims, " ") != "waiting" || text != "preemption: found a potential placement for pod on node n, preempting 1 victims" {
		t.Errorf("%v: %s", victims, text)
	}
}

// What a pod requests as a whole stands for its containers on a node, but not in the
// score of the pod itself; a small container counts where nobody requests anything.
func TestRequestsAsAWhole(t *testing.T) {
	list := func(cpu, memory string) (l corev1.ResourceList) {
		l = corev1.ResourceList{}
		if cpu != "" {
			l[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			l[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		return l
	}
	p := &corev1.Pod{Spec: corev1.PodSpec{Resources: &corev1.ResourceRequirements{Requests: list("2", "")}, Containers: []corev1.Container{
		{Resources: corev1.ResourceRequirements{Requests: list("", "1Gi")}}, {},
	}}}
	if got := scheduler.NonZeroRequests(p); got.MilliCPU != 2000 || got.Memory != 1<<30 {
		t.Errorf("on a node: %+v", got)
	}
	if got := scheduler.ContainerRequests(p); got.MilliCPU != 200 || got.Memory != 1<<30+200<<20 {
		t.Errorf("in its score: %+v", got)
	}
}
