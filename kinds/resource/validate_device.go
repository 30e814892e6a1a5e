package resource

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// deviceCheck checks one device of a slice. What was there before is not checked
// again.
type deviceCheck struct {
	*kinds.Faults
	now, old *resourcev1.Device
	at       *kinds.Path
}

func (c *deviceCheck) all(perDevice bool) {
	c.Each(c.at.Child("name"), c.now.Name, validation.IsDNS1123Label(c.now.Name))
	c.attributes()
	if c.old == nil || !apiequality.Semantic.DeepEqual(c.old.Capacity, c.now.Capacity) {
		c.capacities()
	}
	if c.old == nil || !apiequality.Semantic.DeepEqual(c.old.Taints, c.now.Taints) {
		few(c.Faults, c.now.Taints, resourcev1.DeviceTaintsMaxLength, c.at.Child("taints"), func(t *resourcev1.DeviceTaint, here *kinds.Path) {
			taint(c.Faults, t, here)
		})
	}
	consumes := c.at.Child("consumesCounters")
	few(c.Faults, c.now.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, consumes, func(u *resourcev1.DeviceCounterConsumption, here *kinds.Path) {
		counters(c.Faults, u.CounterSet, u.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, here.Child("counterSet"), here.Child("counters"))
	})
	distinct(c.Faults, c.now.ConsumesCounters, consumes, func(u *resourcev1.DeviceCounterConsumption) string { return u.CounterSet })
	c.place(perDevice)
	binding(c.Faults, c.now.BindingConditions, c.now.BindingFailureConditions, c.at)
}

func (c *deviceCheck) attributes() {
	if n := len(c.now.Attributes) + len(c.now.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		c.Invalid(c.at, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice))
	}
	values := 0
	for _, a := range c.now.Attributes {
		values += max(1, len(a.BoolValues)+len(a.IntValues)+len(a.StringValues)+len(a.VersionValues))
	}
	if values > resourcev1.ResourceSliceMaxAttributeValuesPerDevice {
		c.Invalid(c.at, values, fmt.Sprintf("the total number of attribute values must not exceed %d", resourcev1.ResourceSliceMaxAttributeValuesPerDevice))
	}
	for _, name := range slices.Sorted(maps.Keys(c.now.Attributes)) {
		a := c.now.Attributes[name]
		qualified(c.Faults, string(name), c.at.Child("attributes"))
		attribute(c.Faults, &a, c.at.Child("attributes").Key(shorten(string(name))))
	}
}

// version is semver.org's grammar, 2.0.0.
var version = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

// attribute has exactly one value, or one list of them.
func attribute(f *kinds.Faults, a *resourcev1.DeviceAttribute, at *kinds.Path) {
	text := func(s string, at *kinds.Path) {
		if len(s) > resourcev1.DeviceAttributeMaxValueLength {
			f.TooLong(at, resourcev1.DeviceAttributeMaxValueLength)
		}
	}
	number := func(s string, at *kinds.Path) {
		if !version.MatchString(s) {
			f.Invalid(at, s, "must be a string compatible with semver.org spec 2.0.0")
		}
		text(s, at)
	}
	set := 0
	for _, one := range []bool{a.BoolValue != nil, a.IntValue != nil, a.StringValue != nil, a.VersionValue != nil,
		a.BoolValues != nil, a.IntValues != nil, a.StringValues != nil, a.VersionValues != nil} {
		if one {
			set++
		}
	}
	if a.StringValue != nil {
		text(*a.StringValue, at.Child("string"))
	}
	if a.VersionValue != nil {
		number(*a.VersionValue, at.Child("version"))
	}
	nonEmpty(f, a.BoolValues, at.Child("bools"), nil)
	nonEmpty(f, a.IntValues, at.Child("ints"), nil)
	nonEmpty(f, a.StringValues, at.Child("strings"), text)
	nonEmpty(f, a.VersionValues, at.Child("versions"), number)
	switch set {
	case 0:
		f.Invalid(at, "", "exactly one value must be specified")
	case 1:
	default:
		f.Invalid(at, *a, "exactly one value must be specified")
	}
}

func nonEmpty[T any](f *kinds.Faults, list []T, at *kinds.Path, each func(T, *kinds.Path)) {
	if list != nil && len(list) == 0 {
		f.Invalid(at, list, "must not be empty if specified")
	}
	for i := range list {
		if each != nil {
			each(list[i], at.Index(i))
		}
	}
}

// place checks where a device can be used, if each of its slice says so itself.
func (c *deviceCheck) place(perDevice bool) {
	d := c.now
	if !perDevice {
		if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
			c.Invalid(c.at, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")
		}
		return
	}
	var set []string
	if d.NodeName != nil {
		if *d.NodeName == "" {
			c.Invalid(c.at.Child("nodeName"), *d.NodeName, "must not be empty")
		} else {
			set = append(set, "`nodeName`")
			c.Each(c.at.Child("nodeName"), *d.NodeName, validation.IsDNS1123Subdomain(*d.NodeName))
		}
	}
	if d.NodeSelector != nil {
		set = append(set, "`nodeSelector`")
		c.Join(core.ValidateNodeSelector(d.NodeSelector, c.at.Child("nodeSelector")))
	}
	if d.AllNodes != nil {
		if *d.AllNodes {
			set = append(set, "`allNodes`")
		} else {
			c.Invalid(c.at.Child("allNodes"), *d.AllNodes, "must be either unset or set to true")
		}
	}
	const one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
	switch len(set) {
	case 0:
		c.Required(c.at, one)
	case 1:
	default:
		c.Invalid(c.at, fmt.Sprintf("{%s}", strings.Join(set, ", ")), one)
	}
}

// binding are the conditions that a device waits for, and those that end the wait:
// both or none, and no name in both.
func binding(f *kinds.Faults, good, bad []string, at *kinds.Path) {
	named := func(name *string, here *kinds.Path) { f.Join(metav1validation.ValidateLabelName(*name, here.Field())) }
	same := func(name *string) string { return *name }
	goodAt, badAt := at.Child("bindingConditions"), at.Child("bindingFailureConditions")
	few(f, good, resourcev1.BindingConditionsMaxSize, goodAt, named)
	few(f, bad, resourcev1.BindingFailureConditionsMaxSize, badAt, named)
	distinct(f, good, goodAt, same)
	seen := map[string]bool{}
	for i, name := range bad {
		if seen[name] {
			f.Duplicate(badAt.Index(i), name)
		}
		seen[name] = true
		if slices.Contains(good, name) {
			f.Invalid(badAt.Index(i), name, "bindingFailureConditions must not overlap with bindingConditions")
		}
	}
	if len(good) == 0 && len(bad) > 0 {
		f.Invalid(goodAt, good, "bindingConditions are required to use bindingFailureConditions")
	}
	if len(bad) == 0 && len(good) > 0 {
		f.Invalid(badAt, bad, "bindingFailureConditions are required to use bindingConditions")
	}
}
