// Package resource says what the kinds of the resource group are: devices that
// drivers offer, and claims to them.
package resource

import (
	"fmt"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{DeviceClass(), DeviceTaintRule(), ResourceClaim(), ResourceClaimTemplate(), ResourceSlice()}
}

// DeviceClass is the kind that says which devices an administrator groups
// together, and how they are set up.
func DeviceClass() *kinds.Kind {
	return &kinds.Kind{
		GVK:      resourcev1.SchemeGroupVersion.WithKind("DeviceClass"),
		Resource: "deviceclasses", Singular: "deviceclass", Storage: "deviceclasses",
		New:     func() kinds.Object { return &resourcev1.DeviceClass{} },
		NewList: func() runtime.Object { return &resourcev1.DeviceClassList{} },
		Strategy: kinds.Strategy{
			Generation: true, ReturnsDeleted: true,
			ValidateName:  declared.AnyName,
			PrepareCreate: kinds.Each(func(c *resourcev1.DeviceClass) { kinds.FirstGeneration(c) }),
			PrepareUpdate: kinds.Pair(func(c, old *resourcev1.DeviceClass) {
				kinds.NextGeneration(c, old, !kinds.Same(c.Spec, old.Spec))
			}),
			Validate:       kinds.Check(validateClass),
			ValidateUpdate: kinds.CheckUpdate(validateClassUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Columns("Name", "Age"),
			Row: kinds.Row(func(c *resourcev1.DeviceClass, now time.Time) []any {
				return []any{c.Name, kinds.Created(c, now)}
			}),
		},
	}
}

// DeviceTaintRule is the kind by which an administrator taints devices.
func DeviceTaintRule() *kinds.Kind {
	return &kinds.Kind{
		GVK:      resourcev1.SchemeGroupVersion.WithKind("DeviceTaintRule"),
		Resource: "devicetaintrules", Singular: "devicetaintrule", Storage: "devicetaintrules",
		New:     func() kinds.Object { return &resourcev1.DeviceTaintRule{} },
		NewList: func() runtime.Object { return &resourcev1.DeviceTaintRuleList{} },
		Strategy: kinds.Strategy{
			Generation: true, ReturnsDeleted: true, ForbidUnconditionalUpdate: true,
			PrepareCreate: kinds.Each(func(r *resourcev1.DeviceTaintRule) {
				r.Status = resourcev1.DeviceTaintRuleStatus{}
				kinds.FirstGeneration(r)
			}),
			PrepareUpdate: kinds.Pair(func(r, old *resourcev1.DeviceTaintRule) {
				r.Status = old.Status
				kinds.NextGeneration(r, old, !kinds.Same(r.Spec, old.Spec))
			}),
			Validate:       kinds.Check(validateRule),
			ValidateUpdate: kinds.CheckUpdate(validateRuleUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(deviceTaintRuleTexts(), "Name", "Key", "Value", "Effect", "TimeAdded", "Age"),
			Row: kinds.Row(func(r *resourcev1.DeviceTaintRule, now time.Time) []any {
				taint, added := &r.Spec.Taint, ""
				if taint.TimeAdded != nil {
					added = kinds.Age(*taint.TimeAdded, now)
				}
				return []any{r.Name, taint.Key, taint.Value, string(taint.Effect), added, kinds.Created(r, now)}
			}),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusOnly(func(next, body *resourcev1.DeviceTaintRule) { next.Status = body.Status }, validateRuleStatus),
		},
	}
}

// ResourceClaim is the kind that asks for devices, and says which it has got.
func ResourceClaim() *kinds.Kind {
	return &kinds.Kind{
		GVK:      resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"),
		Resource: "resourceclaims", Singular: "resourceclaim", Storage: "resourceclaims", Namespaced: true,
		New:     func() kinds.Object { return &resourcev1.ResourceClaim{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceClaimList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			ReturnsDeleted: true,
			Default: kinds.Each(func(c *resourcev1.ResourceClaim) {
				defaultClaim(&c.Spec)
				defaultResults(&c.Status)
			}),
			PrepareCreate: kinds.Each(func(c *resourcev1.ResourceClaim) {
				c.Status = resourcev1.ResourceClaimStatus{}
				dropFromRequests(&c.Spec, nil)
			}),
			PrepareUpdate: kinds.Pair(func(c, old *resourcev1.ResourceClaim) {
				c.Status = old.Status
				dropFromRequests(&c.Spec, &old.Spec)
			}),
			Validate:       kinds.Check(validateClaim),
			ValidateUpdate: kinds.CheckUpdate(validateClaimUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(resourceClaimTexts(), "Name", "State", "Age"),
			Row: kinds.Row(func(c *resourcev1.ResourceClaim, now time.Time) []any {
				return []any{c.Name, state(c), kinds.Created(c, now)}
			}),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusOnly(func(next, body *resourcev1.ResourceClaim) {
				old := *next
				next.Status = body.Status
				dropNodeOperations(next, &old)
				dropDevices(next, &old)
			}, validateClaimStatus),
		},
	}
}

// state is a claim's in a word or two.
func state(c *resourcev1.ResourceClaim) string {
	var words []string
	if c.DeletionTimestamp != nil {
		words = append(words, "deleted")
	}
	switch {
	case c.Status.Allocation != nil && len(c.Status.ReservedFor) > 0:
		words = append(words, "allocated", "reserved")
	case c.Status.Allocation != nil:
		words = append(words, "allocated")
	case c.DeletionTimestamp == nil:
		words = append(words, "pending")
	}
	return strings.Join(words, ",")
}

// ResourceClaimTemplate is the kind of which the claims of pods are made.
func ResourceClaimTemplate() *kinds.Kind {
	return &kinds.Kind{
		GVK:      resourcev1.SchemeGroupVersion.WithKind("ResourceClaimTemplate"),
		Resource: "resourceclaimtemplates", Singular: "resourceclaimtemplate", Storage: "resourceclaimtemplates", Namespaced: true,
		New:     func() kinds.Object { return &resourcev1.ResourceClaimTemplate{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceClaimTemplateList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			ReturnsDeleted: true,
			Default:        kinds.Each(func(t *resourcev1.ResourceClaimTemplate) { defaultClaim(&t.Spec.Spec) }),
			PrepareCreate:  kinds.Each(func(t *resourcev1.ResourceClaimTemplate) { dropFromRequests(&t.Spec.Spec, nil) }),
			PrepareUpdate:  kinds.Pair(func(t, old *resourcev1.ResourceClaimTemplate) { dropFromRequests(&t.Spec.Spec, &old.Spec.Spec) }),
			Validate:       kinds.Check(validateTemplate),
			ValidateUpdate: kinds.CheckUpdate(validateTemplateUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Columns("Name", "Age"),
			Row: kinds.Row(func(t *resourcev1.ResourceClaimTemplate, now time.Time) []any {
				return []any{t.Name, kinds.Created(t, now)}
			}),
		},
	}
}

// ResourceSlice is the kind by which a driver says which devices there are.
func ResourceSlice() *kinds.Kind {
	return &kinds.Kind{
		GVK:      resourcev1.SchemeGroupVersion.WithKind("ResourceSlice"),
		Resource: "resourceslices", Singular: "resourceslice", Storage: "resourceslices",
		New:     func() kinds.Object { return &resourcev1.ResourceSlice{} },
		NewList: func() runtime.Object { return &resourcev1.ResourceSliceList{} },
		Fields: func(obj kinds.Object) fields.Set {
			s := obj.(*resourcev1.ResourceSlice)
			return fields.Set{"spec.driver": s.Spec.Driver, "spec.nodeName": kinds.Deref(s.Spec.NodeName), "spec.pool.name": s.Spec.Pool.Name}
		},
		FieldLabels: []string{"spec.driver", "spec.nodeName", "spec.pool.name"},
		Strategy: kinds.Strategy{
			Generation: true, ReturnsDeleted: true,
			PrepareCreate: kinds.Each(func(s *resourcev1.ResourceSlice) {
				kinds.FirstGeneration(s)
				dropFromSlice(s, nil)
			}),
			PrepareUpdate: kinds.Pair(func(s, old *resourcev1.ResourceSlice) {
				kinds.NextGeneration(s, old, !kinds.Same(s.Spec, old.Spec))
				dropFromSlice(s, old) // after the comparison, as upstream
			}),
			Validate:       kinds.Check(validateSlice),
			ValidateUpdate: kinds.CheckUpdate(validateSliceUpdate),
			Warnings: kinds.Warn(func(s, _ *resourcev1.ResourceSlice) []string {
				if s.Spec.Driver == strings.ToLower(s.Spec.Driver) {
					return nil
				}
				return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", s.Spec.Driver)}
			}),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(resourceSliceTexts(), "Name", "Node", "Driver", "Pool", "Age"),
			Row: kinds.Row(func(s *resourcev1.ResourceSlice, now time.Time) []any {
				return []any{s.Name, kinds.Deref(s.Spec.NodeName), s.Spec.Driver, s.Spec.Pool.Name, kinds.Created(s, now)}
			}),
		},
	}
}

// defaultClaim: one device of each request, and tolerations that compare.
func defaultClaim(spec *resourcev1.ResourceClaimSpec) {
	amount := func(mode *resourcev1.DeviceAllocationMode, count *int64, tolerations []resourcev1.DeviceToleration) {
		if *mode == "" {
			*mode = resourcev1.DeviceAllocationModeExactCount
		}
		if *mode == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
			*count = 1
		}
		for i := range tolerations {
			if tolerations[i].Operator == "" {
				tolerations[i].Operator = resourcev1.DeviceTolerationOpEqual
			}
		}
	}
	for i := range spec.Devices.Requests {
		r := &spec.Devices.Requests[i]
		if e := r.Exactly; e != nil {
			amount(&e.AllocationMode, &e.Count, e.Tolerations)
		}
		for j := range r.FirstAvailable {
			s := &r.FirstAvailable[j]
			amount(&s.AllocationMode, &s.Count, s.Tolerations)
		}
	}
}

// defaultResults: tolerations of what has been given out compare, too.
func defaultResults(s *resourcev1.ResourceClaimStatus) {
	if s.Allocation == nil {
		return
	}
	for i := range s.Allocation.Devices.Results {
		for j := range s.Allocation.Devices.Results[i].Tolerations {
			if t := &s.Allocation.Devices.Results[i].Tolerations[j]; t.Operator == "" {
				t.Operator = resourcev1.DeviceTolerationOpEqual
			}
		}
	}
}
