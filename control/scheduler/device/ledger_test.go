package device_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/control/scheduler/device"
)

func claim(name, rev string, devices ...string) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name), ResourceVersion: rev}}
	if len(devices) == 0 {
		return c
	}
	c.Status.Allocation = &resourcev1.AllocationResult{}
	for _, d := range devices {
		c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results, resourcev1.DeviceRequestAllocationResult{Driver: "d", Pool: "p", Device: d})
	}
	return c
}

func taken(l *device.Ledger) (all []string) {
	for id := range l.State().AllocatedDevices {
		all = append(all, id.Device.String())
	}
	slices.Sort(all)
	return all
}

// From the promise to the watched claim a device is never free, whatever order the
// news come in; and it is free once the claim has gone.
func TestDevicesStayTaken(t *testing.T) {
	l := device.NewLedger()
	expect := func(step string, want ...string) {
		t.Helper()
		if have := taken(l); !slices.Equal(have, want) {
			t.Errorf("%s: %v are taken, want %v", step, have, want)
		}
	}
	l.SetClaim(nil, claim("a", "1"))
	l.Promise(claim("a", "1", "x"))
	expect("promised", "x")
	l.SetClaim(claim("a", "1"), claim("a", "2")) // the finalizer, seen late
	expect("an old state is seen", "x")
	l.Assume(claim("a", "3", "x"))
	l.Withdraw("a")
	expect("written", "x")
	l.SetClaim(claim("a", "1"), claim("a", "2"))
	expect("an old state is seen after the writing", "x")
	written := claim("a", "3", "x")
	l.SetClaim(claim("a", "2"), written)
	expect("seen", "x")
	l.Assume(claim("a", "2")) // an answer that comes after the watch
	expect("an old answer", "x")
	l.SetClaim(nil, claim("b", "4", "x", "y"))
	expect("two have it", "x", "y")
	l.SetClaim(written, nil)
	expect("one of them goes", "x", "y")
	l.SetClaim(claim("b", "4", "x", "y"), claim("b", "5"))
	expect("all gone")
}

// A claim that was written, and never seen, is not believed in for ever.
func TestAssumptionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := device.NewLedger()
		l.Assume(claim("a", "3", "x"))
		time.Sleep(device.MaxAssumed - time.Second)
		if len(taken(l)) != 1 {
			t.Error("too early")
		}
		time.Sleep(2 * time.Second)
		if len(taken(l)) != 0 || l.Claim("ns", "a") != nil {
			t.Error("for ever")
		}
	})
}

// Rules taint the devices that they select, and no longer than they are there; of
// two classes for one resource the newer counts, and then the other.
func TestRulesAndClasses(t *testing.T) {
	l := device.NewLedger()
	s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}}
	s.Spec.Driver, s.Spec.Pool.Name = "d", "p"
	s.Spec.Devices = []resourcev1.Device{{Name: "x"}, {Name: "y"}}
	l.SetSlice(nil, s)
	only := "y"
	rule := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"}}
	rule.Spec.DeviceSelector = &resourcev1.DeviceTaintSelector{Device: &only}
	rule.Spec.Taint = resourcev1.DeviceTaint{Key: "k", Effect: resourcev1.DeviceTaintEffectNoSchedule}
	if !l.SetRule(nil, rule) {
		t.Error("a rule that means nothing")
	}
	if d := l.Slices()[0].Spec.Devices; len(d[0].Taints) != 0 || len(d[1].Taints) != 1 || len(s.Spec.Devices[1].Taints) != 0 {
		t.Errorf("devices %+v", d)
	}
	if l.SetRule(rule, nil); len(l.Slices()[0].Spec.Devices[1].Taints) != 0 {
		t.Error("the taint stays")
	}
	name := "example.com/gpu"
	class := func(n string, age int64) *resourcev1.DeviceClass {
		c := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: n, CreationTimestamp: metav1.Unix(age, 0)}}
		c.Spec.ExtendedResourceName = &name
		return c
	}
	l.SetClass(nil, class("old", 1))
	l.SetClass(nil, class("new", 2))
	if c := l.ClassOf(corev1.ResourceName(name)); c == nil || c.Name != "new" {
		t.Errorf("class %+v", c)
	}
	l.SetClass(class("new", 2), nil)
	if c := l.ClassOf(corev1.ResourceName(name)); c == nil || c.Name != "old" {
		t.Errorf("then class %+v", c)
	}
	if l.ClassOf("deviceclass.resource.kubernetes.io/old") == nil {
		t.Error("no resource by the class's own name")
	}
}
