package resource

import (
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

func validateSlice(s *resourcev1.ResourceSlice) field.ErrorList {
	var f kinds.Faults
	f.Join(core.ValidateDriverName(s.Spec.Driver, spec.Child("driver")))
	pool(&f, s.Spec.Pool.Name, spec.Child("pool", "name"))
	if s.Spec.Pool.ResourceSliceCount <= 0 {
		f.Invalid(spec.Child("pool", "resourceSliceCount"), s.Spec.Pool.ResourceSliceCount, "must be greater than zero")
	}
	f.NonNegative(spec.Child("pool", "generation"), s.Spec.Pool.Generation)
	reach(&f, &s.Spec)
	if s.Spec.SharedCounters != nil && s.Spec.Devices != nil {
		f.Invalid(spec, "", "only one of `sharedCounters` or `devices` is allowed")
	}
	most, at := resourcev1.ResourceSliceMaxDevices, spec.Child("devices")
	for i := range s.Spec.Devices {
		if d := &s.Spec.Devices[i]; len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 {
			most = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	if n := len(s.Spec.Devices); n > most {
		f.TooMany(at, n, most)
	}
	seen := map[string]bool{}
	for i := range s.Spec.Devices {
		d, here := &s.Spec.Devices[i], at.Index(i)
		f.Each(here.Child("name"), d.Name, validation.IsDNS1123Label(d.Name))
		if seen[d.Name] {
			f.Duplicate(here, d.Name)
		}
		seen[d.Name] = true
		for j := range d.Taints {
			taint(&f, &d.Taints[j], here.Child("taints").Index(j))
		}
	}
	return f.List()
}

// reach checks where the devices can be used: in exactly one way.
func reach(f *kinds.Faults, s *resourcev1.ResourceSliceSpec) {
	var set []string
	if s.NodeName != nil {
		if *s.NodeName == "" {
			f.Invalid(spec.Child("nodeName"), *s.NodeName, "must be either unset or set to a non-empty string")
		} else {
			set = append(set, "`nodeName`")
			f.Each(spec.Child("nodeName"), *s.NodeName, validation.IsDNS1123Subdomain(*s.NodeName))
		}
	}
	if s.NodeSelector != nil {
		set = append(set, "`nodeSelector`")
		if len(s.NodeSelector.NodeSelectorTerms) != 1 {
			f.Invalid(spec.Child("nodeSelector", "nodeSelectorTerms"), s.NodeSelector.NodeSelectorTerms, "must have exactly one node selector term")
		}
	}
	flag := func(name string, value *bool) {
		switch {
		case value == nil:
		case *value:
			set = append(set, "`"+name+"`")
		default:
			f.Invalid(spec.Child(name), *value, "must be either unset or set to true")
		}
	}
	flag("allNodes", s.AllNodes)
	flag("perDeviceNodeSelection", s.PerDeviceNodeSelection)
	const one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	switch len(set) {
	case 0:
		f.Required(spec, one)
	case 1:
	default:
		f.Invalid(spec, fmt.Sprintf("{%s}", strings.Join(set, ", ")), one+", but multiple fields are set")
	}
}

func validateSliceUpdate(s, old *resourcev1.ResourceSlice) field.ErrorList {
	var f kinds.Faults
	f.Join(validateSlice(s))
	f.Immutable(spec.Child("pool", "name"), s.Spec.Pool.Name, old.Spec.Pool.Name)
	f.Immutable(spec.Child("driver"), s.Spec.Driver, old.Spec.Driver)
	f.Immutable(spec.Child("nodeName"), s.Spec.NodeName, old.Spec.NodeName)
	return f.List()
}

func taint(f *kinds.Faults, t *resourcev1.DeviceTaint, at *field.Path) {
	f.Each(at.Child("key"), t.Key, validation.IsQualifiedName(t.Key))
	if t.Value != "" {
		f.Each(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))
	}
	kinds.RequiredOneOf(f, at.Child("effect"), t.Effect, effects...)
}

func validateRule(r *resourcev1.DeviceTaintRule) field.ErrorList {
	var f kinds.Faults
	if s := r.Spec.DeviceSelector; s != nil {
		at := spec.Child("deviceSelector")
		if s.Driver != nil {
			f.Join(core.ValidateDriverName(*s.Driver, at.Child("driver")))
		}
		if s.Pool != nil {
			pool(&f, *s.Pool, at.Child("pool"))
		}
		if s.Device != nil {
			f.Each(at.Child("device"), *s.Device, validation.IsDNS1123Label(*s.Device))
		}
	}
	taint(&f, &r.Spec.Taint, spec.Child("taint"))
	return f.List()
}

func validateRuleUpdate(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
	var f kinds.Faults
	f.Join(validateRule(r))
	f.Immutable(spec.Child("deviceSelector"), r.Spec.DeviceSelector, old.Spec.DeviceSelector)
	return f.List()
}
