package resource

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/kinds/declared"
)

func validateSlice(s *resourcev1.ResourceSlice) field.ErrorList { return slice(s, nil) }

func slice(s, old *resourcev1.ResourceSlice) field.ErrorList {
	var f kinds.Faults
	f.Join(core.ValidateDriverName(s.Spec.Driver, spec.Child("driver")))
	pool(&f, s.Spec.Pool.Name, spec.Child("pool").Child("name"))
	if s.Spec.Pool.ResourceSliceCount <= 0 {
		f.Invalid(spec.Child("pool").Child("resourceSliceCount"), s.Spec.Pool.ResourceSliceCount, "must be greater than zero")
	}
	if s.Spec.Pool.Generation < 0 {
		f.Invalid(spec.Child("pool").Child("generation"), s.Spec.Pool.Generation, "must be greater than or equal to zero")
	}
	if old != nil {
		f.Immutable(spec.Child("pool").Child("name"), s.Spec.Pool.Name, old.Spec.Pool.Name)
		f.Immutable(spec.Child("driver"), s.Spec.Driver, old.Spec.Driver)
		f.Immutable(spec.Child("nodeName"), s.Spec.NodeName, old.Spec.NodeName)
	}
	reach(&f, &s.Spec)
	if s.Spec.SharedCounters != nil && s.Spec.Devices != nil {
		f.Invalid(spec, "", "only one of `sharedCounters` or `devices` is allowed")
	}
	sliceDevices(&f, s, old, spec.Child("devices"))
	at := spec.Child("sharedCounters")
	few(&f, s.Spec.SharedCounters, resourcev1.ResourceSliceMaxCounterSets, at, func(c *resourcev1.CounterSet, here *kinds.Path) {
		counters(&f, c.Name, c.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet, here.Child("name"), here.Child("counters"))
	})
	distinct(&f, s.Spec.SharedCounters, at, func(c *resourcev1.CounterSet) string { return c.Name })
	r, was := rules{declared.For(old)}, (*resourcev1.ResourceSliceSpec)(nil)
	if old != nil {
		was = &old.Spec
	}
	r.slice(&s.Spec, was, spec)
	return r.Behind(f.List())
}

// sliceDevices checks the devices, each beside the one that had its name before.
func sliceDevices(f *kinds.Faults, s, old *resourcev1.ResourceSlice, at *kinds.Path) {
	most := resourcev1.ResourceSliceMaxDevices
	before := map[string]*resourcev1.Device{}
	for i := range s.Spec.Devices {
		if d := &s.Spec.Devices[i]; len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 || slices.ContainsFunc(slices.Collect(maps.Values(d.Attributes)), func(a resourcev1.DeviceAttribute) bool { return listed(&a) }) {
			most = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	if old != nil {
		for i := range old.Spec.Devices {
			before[old.Spec.Devices[i].Name] = &old.Spec.Devices[i]
		}
	}
	few(f, s.Spec.Devices, most, at, func(d *resourcev1.Device, here *kinds.Path) {
		(&deviceCheck{f, d, before[d.Name], here}).all(kinds.Deref(s.Spec.PerDeviceNodeSelection))
	})
	distinct(f, s.Spec.Devices, at, func(d *resourcev1.Device) string { return d.Name })
}

// counters are a named set of amounts.
func counters(f *kinds.Faults, name string, set map[string]resourcev1.Counter, most int, nameAt, at *kinds.Path) {
	if f.NonEmpty(nameAt, name) {
		f.Each(nameAt, name, validation.IsDNS1123Label(name))
	}
	switch {
	case len(set) == 0:
		f.Required(at, "")
	case len(set) > most:
		f.TooMany(at, len(set), most)
	default:
		for _, key := range slices.Sorted(maps.Keys(set)) {
			f.Each(at, key, validation.IsDNS1123Label(key))
		}
	}
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
		f.Join(core.ValidateNodeSelector(s.NodeSelector, spec.Child("nodeSelector")))
		if len(s.NodeSelector.NodeSelectorTerms) != 1 {
			f.Invalid(spec.Child("nodeSelector").Child("nodeSelectorTerms"), s.NodeSelector.NodeSelectorTerms, "must have exactly one node selector term")
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

func validateSliceUpdate(s, old *resourcev1.ResourceSlice) field.ErrorList { return slice(s, old) }

// taint checks a taint that is new in its list.
func taint(f *kinds.Faults, t *resourcev1.DeviceTaint, at *kinds.Path) {
	f.Join(metav1validation.ValidateLabelName(t.Key, at.Child("key").Field()))
	if t.Value != "" {
		f.Each(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))
	}
}

func validateRuleStatus(r, _ *resourcev1.DeviceTaintRule) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("status").Child("conditions")
	f.Join(metav1validation.ValidateConditions(r.Status.Conditions, at.Field()))
	if n := len(r.Status.Conditions); n > resourcev1.DeviceTaintRuleStatusMaxConditions {
		f.TooMany(at, n, resourcev1.DeviceTaintRuleStatusMaxConditions)
	}
	return f.List()
}

func validateRule(r *resourcev1.DeviceTaintRule) field.ErrorList { return taintRule(r, nil) }

func validateRuleUpdate(r, old *resourcev1.DeviceTaintRule) field.ErrorList { return taintRule(r, old) }

func taintRule(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
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
	d, was := rules{declared.For(old)}, (*resourcev1.DeviceTaint)(nil)
	if old != nil {
		was = &old.Spec.Taint
	}
	d.taint(&r.Spec.Taint, was, spec.Child("taint"))
	return d.Behind(f.List())
}
