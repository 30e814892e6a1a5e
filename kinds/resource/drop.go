package resource

import (
	resourcev1 "k8s.io/api/resource/v1"
)

// Fields whose feature is off upstream by default, and that nothing here serves, are
// dropped from new objects as upstream does, and left where they were before: lists
// of attribute values, what devices take of their node, groups of counters, types of
// partitions, and nodes that are not asked; and derived attributes in requests.

func dropFromSlice(s, old *resourcev1.ResourceSlice) {
	var kept struct{ lists, node, groups bool }
	eachDevice(old, func(d *resourcev1.Device) {
		kept.node = kept.node || len(d.NodeAllocatableResources) > 0
		for i := range d.ConsumesCounters {
			kept.groups = kept.groups || len(d.ConsumesCounters[i].CompatibilityGroups) > 0
		}
		for _, a := range d.Attributes {
			kept.lists = kept.lists || listed(&a)
		}
	})
	eachDevice(s, func(d *resourcev1.Device) {
		if !kept.node {
			d.NodeAllocatableResources = nil
		}
		for i := range d.ConsumesCounters {
			if !kept.groups {
				d.ConsumesCounters[i].CompatibilityGroups = nil
			}
		}
		for name, a := range d.Attributes {
			if listed(&a) && !kept.lists {
				a.BoolValues, a.IntValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
				d.Attributes[name] = a
			}
		}
	})
	if old == nil || old.Spec.PartitionTypeAttribute == nil {
		s.Spec.PartitionTypeAttribute = nil
	}
	if old == nil || old.Spec.SkipNodeOperations == nil {
		s.Spec.SkipNodeOperations = nil
	}
}

func eachDevice(s *resourcev1.ResourceSlice, visit func(*resourcev1.Device)) {
	if s == nil {
		return
	}
	for i := range s.Spec.Devices {
		visit(&s.Spec.Devices[i])
	}
}

func listed(a *resourcev1.DeviceAttribute) bool {
	return a.BoolValues != nil || a.IntValues != nil || a.StringValues != nil || a.VersionValues != nil
}

func dropFromRequests(spec, old *resourcev1.ResourceClaimSpec) {
	kept := false
	if old != nil {
		derived(old, func(list *[]resourcev1.DeviceDerivedAttribute) { kept = kept || len(*list) > 0 })
	}
	if !kept {
		derived(spec, func(list *[]resourcev1.DeviceDerivedAttribute) { *list = nil })
	}
}

// derived visits what is derived of devices in each request.
func derived(spec *resourcev1.ResourceClaimSpec, visit func(*[]resourcev1.DeviceDerivedAttribute)) {
	for i := range spec.Devices.Requests {
		r := &spec.Devices.Requests[i]
		if r.Exactly != nil {
			visit(&r.Exactly.DerivedAttributes)
		}
		for j := range r.FirstAvailable {
			visit(&r.FirstAvailable[j].DerivedAttributes)
		}
	}
}

// dropNodeOperations forgets which nodes are not asked, unless that was said before.
func dropNodeOperations(next, old *resourcev1.ResourceClaim) {
	results := func(c *resourcev1.ResourceClaim) []resourcev1.DeviceRequestAllocationResult {
		if c.Status.Allocation == nil {
			return nil
		}
		return c.Status.Allocation.Devices.Results
	}
	for i := range results(old) {
		if len(results(old)[i].SkipNodeOperations) > 0 {
			return
		}
	}
	for i := range results(next) {
		results(next)[i].SkipNodeOperations = nil
	}
}
