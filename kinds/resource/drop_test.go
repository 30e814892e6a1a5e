package resource

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/sampan-dev/sampan/kinds"
)

func unservedSlice() *resourcev1.ResourceSlice {
	kind := resourcev1.FullyQualifiedName("example.com/kind")
	return &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{
		PartitionTypeAttribute: &kind,
		SkipNodeOperations:     []resourcev1.SkipNodeOperation{"a"},
		Devices: []resourcev1.Device{{
			Name:                     "d",
			Attributes:               map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"a": {StringValues: []string{"x"}}},
			NodeAllocatableResources: map[corev1.ResourceName]resourcev1.NodeAllocatableResource{"cpu": {}},
			ConsumesCounters:         []resourcev1.DeviceCounterConsumption{{CounterSet: "c", CompatibilityGroups: []string{"g"}}},
		}},
	}}
}

// What nothing serves is gone from new slices, and stays where it was before.
func TestDropFromSlice(t *testing.T) {
	s := unservedSlice()
	dropFromSlice(s, nil)
	d := &s.Spec.Devices[0]
	if a := d.Attributes["a"]; listed(&a) || d.NodeAllocatableResources != nil || d.ConsumesCounters[0].CompatibilityGroups != nil ||
		s.Spec.PartitionTypeAttribute != nil || s.Spec.SkipNodeOperations != nil {
		t.Errorf("a new slice keeps %+v", s.Spec)
	}
	if d.ConsumesCounters[0].CounterSet != "c" {
		t.Error("more than the fields was dropped")
	}
	s = unservedSlice()
	dropFromSlice(s, unservedSlice())
	if !kinds.Same(s, unservedSlice()) {
		t.Error("an update loses what the slice had")
	}
}

// Attributes that requests derive are dropped, unless there were some before.
func TestDropFromRequests(t *testing.T) {
	ask := func() *resourcev1.ResourceClaimSpec {
		list := []resourcev1.DeviceDerivedAttribute{{Name: "a"}}
		return &resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DerivedAttributes: list}},
			{Name: "q", FirstAvailable: []resourcev1.DeviceSubRequest{{Name: "s", DerivedAttributes: list}}},
		}}}
	}
	spec := ask()
	dropFromRequests(spec, nil)
	derived(spec, func(list *[]resourcev1.DeviceDerivedAttribute) {
		if *list != nil {
			t.Errorf("a new claim keeps %v", *list)
		}
	})
	spec = ask()
	dropFromRequests(spec, ask())
	if !kinds.Same(spec, ask()) {
		t.Error("an update loses what the claim had")
	}
}
