package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/profile"
)

// helpCase is one plugin and one event: may it let in a pod that the plugin refused?
type helpCase struct {
	filter, pod string
	change      func(t *testing.T) scheduler.Change
	want        bool
}

// Every filter against the events that can help, and against those that look alike
// and cannot.
func TestHelps(t *testing.T) {
	cases := []helpCase{
		{"NodeUnschedulable", "p", nodeEvent("n", "n cordoned"), true},
		{"NodeUnschedulable", "p", nodeEvent("n cordoned", "n"), false},
		{"NodeUnschedulable", "p", nodeEvent("n label=a=b", "n"), false}, // it was not the cordon
		{"TaintToleration", "p", nodeEvent("n", "n taint=gpu=x:NoSchedule"), true},
		{"TaintToleration", "p", nodeEvent("n taint=gpu=x:NoSchedule", ""), false},
		{"TaintToleration", "p tolerate=gpu", nodeEvent("n taint=gpu=x:NoSchedule", ""), true},
		{"NodeAffinity", "p select=a=b", nodeEvent("n label=a=b", "n"), true},
		{"NodeAffinity", "p select=a=b", nodeEvent("n label=a=b label=c=d", "n label=a=b"), false},
		{"NodeAffinity", "p select=a=b", nodeEvent("n label=a=c", ""), false},
		{"NodePorts", "p port=80", podEvent(scheduler.PodRemoved, "q port=80"), true},
		{"NodePorts", "p port=80", podEvent(scheduler.PodRemoved, "q port=81"), false},
		{"NodePorts", "p port=80", podEvent(scheduler.PodPlaced, "q port=80"), true}, // not heeded
		{"NodeResourcesFit", "p cpu=3", nodeEvent("n cpu=4", ""), true},
		{"NodeResourcesFit", "p cpu=3", nodeEvent("n cpu=2", ""), false},
		{"NodeResourcesFit", "p cpu=3", nodeEvent("n cpu=4 memory=9Gi", "n cpu=4 memory=8Gi"), false},
		{"NodeResourcesFit", "p cpu=3", nodeEvent("n cpu=5", "n cpu=4"), true},
		{"NodeResourcesFit", "p cpu=3", podEvent(scheduler.PodRemoved, "q on=full"), false},
		{"NodeResourcesFit", "p cpu=3", podEvent(scheduler.PodRemoved, "q on=half"), false},
		{"NodeResourcesFit", "p cpu=2", podEvent(scheduler.PodRemoved, "q on=half"), true},
		{"NodeResourcesFit", "p cpu=3 prio=9", podEvent(scheduler.PodRemoved, "q on=half"), true}, // it could evict the rest
		{"NodeResourcesFit", "p cpu=1 example.com/gpu=1", classEvent("example.com/gpu"), true},
		{"NodeResourcesFit", "p cpu=1 example.com/gpu=1", classEvent("example.com/nic"), false},
		{"PodTopologySpread", "p label=app=x spread=zone:1", podEvent(scheduler.PodPlaced, "q label=app=x"), true},
		{"PodTopologySpread", "p label=app=x spread=zone:1", podEvent(scheduler.PodPlaced, "q label=app=y"), false},
		{"PodTopologySpread", "p label=app=x spread=zone:1", podEvent(scheduler.PodRemoved, "q label=app=x in=other"), false},
		{"PodTopologySpread", "p label=app=x spread=zone:1", relabelled("q label=app=x", "q label=app=y"), true},
		{"PodTopologySpread", "p label=app=x spread=zone:1", relabelled("q label=a=b", "q label=a=c"), false},
		{"PodTopologySpread", "p label=app=x spread=zone:1", nodeEvent("n label=zone=a", ""), true},
		{"PodTopologySpread", "p label=app=x spread=zone:1", nodeEvent("n", ""), false},
		{"PodTopologySpread", "p label=app=x spread=zone:1", nodeEvent("", "n label=zone=a"), true},
		{"InterPodAffinity", "p near=app=x@zone", podEvent(scheduler.PodPlaced, "q label=app=x"), true},
		{"InterPodAffinity", "p near=app=x@zone", podEvent(scheduler.PodPlaced, "q label=app=y"), false},
		{"InterPodAffinity", "p near=app=x@zone", podEvent(scheduler.PodRemoved, "q label=app=x"), true}, // the last may have gone
		{"InterPodAffinity", "p far=app=x@zone", podEvent(scheduler.PodRemoved, "q label=app=x"), true},
		{"InterPodAffinity", "p far=app=x@zone", podEvent(scheduler.PodPlaced, "q label=app=x"), false},
		{"InterPodAffinity", "p far=app=x@zone", relabelled("q label=app=y", "q label=app=x"), true},
		{"InterPodAffinity", "p label=app=z", podEvent(scheduler.PodRemoved, "q far=app=z@zone"), true},
		{"InterPodAffinity", "p label=app=z", podEvent(scheduler.PodRemoved, "q far=app=y@zone"), false},
		{"InterPodAffinity", "p near=app=x@zone", nodeEvent("n", ""), false},
		{"VolumeBinding", "p claim=mine", storageEvent(scheduler.ClaimChanged, nil, claimNamed("mine")), true},
		{"VolumeBinding", "p claim=mine", storageEvent(scheduler.ClaimChanged, nil, claimNamed("other")), false},
		{"VolumeBinding", "p claim=mine", storageEvent(scheduler.VolumeChanged, nil, &corev1.PersistentVolume{}), true},
		{"VolumeBinding", "p claim=mine", storageEvent(scheduler.VolumeChanged, &corev1.PersistentVolume{}, nil), false},
		{"VolumeBinding", "p claim=mine", storageEvent(scheduler.ClassChanged, &storagev1.StorageClass{}, &storagev1.StorageClass{}), false},
		{"VolumeBinding", "p claim=mine", storageEvent(scheduler.CapacityChanged, space("1Gi"), space("2Gi")), true},
		{"VolumeBinding", "p claim=mine", storageEvent(scheduler.CapacityChanged, space("2Gi"), space("1Gi")), false},
		{"VolumeBinding", "p claim=mine", storageEvent(scheduler.VolumeChanged, nil, nil), true},
		{"VolumeZone", "p claim=mine", storageEvent(scheduler.ClaimChanged, nil, claimNamed("other")), false},
		{"VolumeRestrictions", "p claim=mine", podEvent(scheduler.PodRemoved, "q claim=mine"), true},
		{"VolumeRestrictions", "p claim=mine", podEvent(scheduler.PodRemoved, "q claim=other"), false},
		{"NodeVolumeLimits", "p claim=mine", storageEvent(scheduler.CSINodeChanged, driverLimit(1), driverLimit(2)), true},
		{"NodeVolumeLimits", "p claim=mine", storageEvent(scheduler.CSINodeChanged, driverLimit(2), driverLimit(1)), false},
		{"NodeVolumeLimits", "p claim=mine", storageEvent(scheduler.AttachmentChanged, &storagev1.VolumeAttachment{}, nil), true},
		{"NodeVolumeLimits", "p claim=mine", storageEvent(scheduler.AttachmentChanged, nil, &storagev1.VolumeAttachment{}), false},
		{"DynamicResources", "p", storageEvent(scheduler.DeviceClaimChanged, deviceClaim("a", true), deviceClaim("a", false)), true},
		{"DynamicResources", "p", storageEvent(scheduler.DeviceClaimChanged, deviceClaim("a", false), deviceClaim("a", true)), false},
		{"DynamicResources", "p", storageEvent(scheduler.DeviceClaimChanged, deviceClaim("a", true), nil), true},
		{"DynamicResources", "p", storageEvent(scheduler.DeviceClaimChanged, deviceClaim("a", false), nil), false},
		{"DynamicResources", "p", storageEvent(scheduler.DeviceSliceChanged, nil, &resourcev1.ResourceSlice{}), true},
		{"DynamicResources", "p", storageEvent(scheduler.DeviceSliceChanged, &resourcev1.ResourceSlice{}, nil), false},
		{"NodeDeclaredFeatures", "p", nodeEvent("n", ""), true},
	}
	for i, c := range cases {
		t.Run(fmt.Sprintf("%d/%s/%s", i, c.filter, c.pod), func(t *testing.T) {
			w := scheduler.NewWorld(profile.Default()[0])
			storage := newShelf()
			w.SetStorage(storage)
			for _, name := range []string{"full", "half"} {
				w.SetNode(node(t, []string{name}))
			}
			place(t, w, "f1 cpu=4", "full")
			place(t, w, "h1 cpu=2", "half")
			p, _ := pod(t, strings.Fields(c.pod))
			heeds, helps := w.Helps(c.filter, p, c.change(t))
			if c.filter == "NodePorts" && c.change(t).Kind == scheduler.PodPlaced {
				if heeds {
					t.Error("a pod that comes frees no port")
				}
				return
			}
			if !heeds || helps != c.want {
				t.Errorf("heeds %v, helps %v, want %v", heeds, helps, c.want)
			}
		})
	}
	w := scheduler.NewWorld(profile.Default()[0])
	tried := map[string]bool{"NodeName": true} // binds what has a node: it refuses nobody here
	for _, c := range cases {
		tried[c.filter] = true
	}
	for _, f := range w.Filters() {
		if !tried[f] {
			t.Errorf("no case for %s", f)
		}
		if w.Heeds(f) == 0 || w.Heeds(f) == ^scheduler.ChangeKind(0) {
			t.Errorf("%s heeds %b", f, w.Heeds(f))
		}
	}
}

// Five thousand pods that fit nowhere cost next to nothing while others come and
// go; what makes room wakes them, and so does the passing of five minutes.
func TestUnschedulablePodsSleep(t *testing.T) {
	w := scheduler.NewWorld(profile.Default()[0])
	for i := range 100 {
		w.SetNode(node(t, strings.Fields(fmt.Sprintf("n%d", i))))
		place(t, w, fmt.Sprintf("big%d cpu=3", i), fmt.Sprintf("n%d", i))
	}
	now := time.Now()
	l := w.NewLine()
	for i := range 5000 {
		p, _ := pod(t, strings.Fields(fmt.Sprintf("p%d cpu=2", i)))
		p.Spec.Containers[0].Image = "same"
		if got := l.Try(p, now); got != "" {
			t.Fatalf("placed on %s", got)
		}
	}
	moved := 0
	for i := range 1000 {
		q, _ := pod(t, strings.Fields(fmt.Sprintf("churn%d cpu=500m", i)))
		on := fmt.Sprintf("n%d", i%100)
		w.Place(q, on)
		moved += l.Change(scheduler.Change{Kind: scheduler.PodPlaced, Pod: q, On: on}, now)
		w.Lift(q)
		moved += l.Change(scheduler.Change{Kind: scheduler.PodRemoved, Pod: q, On: on}, now)
		moved += l.Change(scheduler.Change{Kind: scheduler.ClaimChanged, New: claimNamed("x")}, now)
	}
	if moved != 0 || l.Asked() != 1000 {
		t.Errorf("%d pods woken, %d questions asked, for 3000 changes", moved, l.Asked())
	}
	if n := l.Woken(now.Add(4 * time.Minute)); n != 0 {
		t.Errorf("%d tried again with no reason", n)
	}
	if n := l.Woken(now.Add(5*time.Minute + time.Second)); n != 5000 {
		t.Errorf("%d tried again after five minutes", n)
	}
	q, _ := pod(t, strings.Fields("big7"))
	w.Lift(q)
	if n := l.Change(scheduler.Change{Kind: scheduler.PodRemoved, Pod: q, On: "n7"}, now); n != 5000 {
		t.Errorf("%d woken when there is room", n)
	}
}

func place(t *testing.T, w *scheduler.World, line, on string) {
	t.Helper()
	p, _ := pod(t, strings.Fields(line))
	w.Place(p, on)
}

// nodeEvent is a node that was, and is now; "" is none.
func nodeEvent(now, old string) func(*testing.T) scheduler.Change {
	return func(t *testing.T) scheduler.Change {
		c := scheduler.Change{Kind: scheduler.NodeAdded | scheduler.NodeLabels | scheduler.NodeTaints | scheduler.NodeAllocatable | scheduler.NodeFeatures}
		if now != "" {
			c.Node = node(t, strings.Fields(now))
		} else {
			c.Kind = scheduler.NodeRemoved
		}
		if old != "" {
			c.OldNode = node(t, strings.Fields(old))
		}
		return c
	}
}

func podEvent(kind scheduler.ChangeKind, line string) func(*testing.T) scheduler.Change {
	return func(t *testing.T) scheduler.Change {
		p, on := pod(t, strings.Fields(line))
		return scheduler.Change{Kind: kind, Pod: p, On: on}
	}
}

func relabelled(now, was string) func(*testing.T) scheduler.Change {
	return func(t *testing.T) scheduler.Change {
		p, on := pod(t, strings.Fields(now))
		old, _ := pod(t, strings.Fields(was))
		return scheduler.Change{Kind: scheduler.PodPlaced, Pod: p, Was: old, On: on}
	}
}

func storageEvent(kind scheduler.ChangeKind, old, now any) func(*testing.T) scheduler.Change {
	return func(*testing.T) scheduler.Change { return scheduler.Change{Kind: kind, Old: old, New: now} }
}

func claimNamed(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

func space(size string) *storagev1.CSIStorageCapacity {
	q := resource.MustParse(size)
	return &storagev1.CSIStorageCapacity{Capacity: &q}
}

func driverLimit(n int32) *storagev1.CSINode {
	return &storagev1.CSINode{Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "d", Allocatable: &storagev1.VolumeNodeResources{Count: &n}}}}}
}

func deviceClaim(name string, allocated bool) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "u"}}
	if allocated {
		c.Status.Allocation = &resourcev1.AllocationResult{}
	}
	return c
}

func classEvent(resource string) func(*testing.T) scheduler.Change {
	c := &resourcev1.DeviceClass{}
	c.Spec.ExtendedResourceName = &resource
	return storageEvent(scheduler.DeviceClassChanged, nil, c)
}
