package resource

import (
	"context"
	"maps"
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// rules are upstream's declared rules of this group, type by type in the order of
// the fields. What the feature gates that are off would drop is not among them.
type rules struct{ *declared.Rules }

func (r rules) class(now, old *resourcev1.DeviceClassSpec, at *kinds.Path) {
	r.selectors(now.Selectors, selectorsOf(old), at)
	declared.List(r.Rules, now, old, at.Child("config"), func(s *resourcev1.DeviceClassSpec) []resourcev1.DeviceClassConfiguration { return s.Config },
		declared.Each[resourcev1.DeviceClassConfiguration]{Most: resourcev1.DeviceConfigMaxSize, Check: func(now, _ *resourcev1.DeviceClassConfiguration, at *kinds.Path) {
			r.opaque(&now.DeviceConfiguration, at)
		}})
	declared.Pointer(r.Rules, now, old, at.Child("extendedResourceName"), func(s *resourcev1.DeviceClassSpec) *string { return s.ExtendedResourceName },
		func(now, _ *string, at *kinds.Path) {
			declared.String(r.Rules, *now, at, validate.ExtendedResourceName[string])
		})
}

func selectorsOf(s *resourcev1.DeviceClassSpec) []resourcev1.DeviceSelector {
	if s == nil {
		return nil
	}
	return s.Selectors
}

func (r rules) selectors(now, old []resourcev1.DeviceSelector, at *kinds.Path) {
	declared.List(r.Rules, &now, &old, at.Child("selectors"), func(s *[]resourcev1.DeviceSelector) []resourcev1.DeviceSelector { return *s },
		declared.Each[resourcev1.DeviceSelector]{Most: resourcev1.DeviceSelectorsMaxSize})
}

// opaque is the part of a configuration that only a driver understands.
func (r rules) opaque(now *resourcev1.DeviceConfiguration, at *kinds.Path) {
	if now.Opaque != nil {
		declared.Required(r.Rules, now.Opaque, nil, at.Child("opaque").Child("driver"), func(o *resourcev1.OpaqueDeviceConfiguration) string { return o.Driver }, driverRules...)
	}
}

var driverRules = []declared.Rule[string]{validate.LongNameCaseless[string], declared.MaxLength[string](63)} //nolint:staticcheck // deprecated for new fields: this is what the field has

// claim is what is asked for. It never changes, so what is in a request is new.
func (r rules) claim(now, old *resourcev1.DeviceClaim, at *kinds.Path) {
	declared.List(r.Rules, now, old, at.Child("requests"), func(c *resourcev1.DeviceClaim) []resourcev1.DeviceRequest { return c.Requests },
		declared.Each[resourcev1.DeviceRequest]{Most: resourcev1.DeviceRequestsMaxSize, Check: r.request,
			Same: func(a, b *resourcev1.DeviceRequest) bool { return a.Name == b.Name }})
	declared.List(r.Rules, now, old, at.Child("constraints"), func(c *resourcev1.DeviceClaim) []resourcev1.DeviceConstraint { return c.Constraints },
		declared.Each[resourcev1.DeviceConstraint]{Most: resourcev1.DeviceConstraintsMaxSize, Check: r.constraint})
	declared.List(r.Rules, now, old, at.Child("config"), func(c *resourcev1.DeviceClaim) []resourcev1.DeviceClaimConfiguration { return c.Config },
		declared.Each[resourcev1.DeviceClaimConfiguration]{Most: resourcev1.DeviceConfigMaxSize, Check: func(now, _ *resourcev1.DeviceClaimConfiguration, at *kinds.Path) {
			r.references(now.Requests, at)
			r.opaque(&now.DeviceConfiguration, at)
		}})
}

func (r rules) references(names []string, at *kinds.Path) {
	declared.List(r.Rules, &names, nil, at.Child("requests"), func(s *[]string) []string { return *s },
		declared.Each[string]{Most: resourcev1.DeviceRequestsMaxSize, Same: declared.Equal[string]})
}

func (r rules) constraint(now, _ *resourcev1.DeviceConstraint, at *kinds.Path) {
	r.references(now.Requests, at)
	full := validate.ResourceFullyQualifiedName[resourcev1.FullyQualifiedName]
	for _, a := range []struct {
		field string
		name  *resourcev1.FullyQualifiedName
	}{{"matchAttribute", now.MatchAttribute}, {"distinctAttribute", now.DistinctAttribute}} {
		if a.name != nil {
			r.Join(full(context.Background(), operation.Operation{}, at.Child(a.field).Field(), a.name, nil))
		}
	}
}

func (r rules) request(now, _ *resourcev1.DeviceRequest, at *kinds.Path) {
	if e := now.Exactly; e != nil {
		r.amount(asked{e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations, e.Capacity}, at.Child("exactly"))
	}
	declared.List(r.Rules, now, nil, at.Child("firstAvailable"), func(q *resourcev1.DeviceRequest) []resourcev1.DeviceSubRequest { return q.FirstAvailable },
		declared.Each[resourcev1.DeviceSubRequest]{Most: resourcev1.FirstAvailableDeviceRequestMaxSize,
			Same: func(a, b *resourcev1.DeviceSubRequest) bool { return a.Name == b.Name },
			Check: func(s, _ *resourcev1.DeviceSubRequest, at *kinds.Path) {
				declared.Required(r.Rules, s, nil, at.Child("deviceClassName"), func(s *resourcev1.DeviceSubRequest) string { return s.DeviceClassName }, validate.LongName[string])
				r.amount(asked{s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations, s.Capacity}, at)
			}})
}

func (r rules) amount(a asked, at *kinds.Path) {
	r.selectors(a.selectors, nil, at)
	declared.Text(r.Rules, &a, nil, at.Child("allocationMode"), func(a *asked) resourcev1.DeviceAllocationMode { return a.mode },
		declared.OneOf(resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount))
	r.tolerations(a.tolerations, at)
}

func (r rules) tolerations(all []resourcev1.DeviceToleration, at *kinds.Path) {
	for i := range all {
		t, here := &all[i], at.Child("tolerations").Index(i)
		declared.Text(r.Rules, t, nil, here.Child("key"), func(t *resourcev1.DeviceToleration) string { return t.Key }, validate.LabelKey[string])
		declared.Required(r.Rules, t, nil, here.Child("operator"), func(t *resourcev1.DeviceToleration) resourcev1.DeviceTolerationOperator { return t.Operator },
			declared.OneOf(resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists))
		declared.Text(r.Rules, t, nil, here.Child("effect"), func(t *resourcev1.DeviceToleration) resourcev1.DeviceTaintEffect { return t.Effect }, declared.OneOf(effects...))
	}
}

func (r rules) taint(now, old *resourcev1.DeviceTaint, at *kinds.Path) {
	declared.Required(r.Rules, now, old, at.Child("effect"), func(t *resourcev1.DeviceTaint) resourcev1.DeviceTaintEffect { return t.Effect }, declared.OneOf(effects...))
}

func (r rules) slice(now, old *resourcev1.ResourceSliceSpec, at *kinds.Path) {
	declared.List(r.Rules, now, old, at.Child("devices"), func(s *resourcev1.ResourceSliceSpec) []resourcev1.Device { return s.Devices },
		declared.Each[resourcev1.Device]{Check: r.device})
	declared.List(r.Rules, now, old, at.Child("sharedCounters"), func(s *resourcev1.ResourceSliceSpec) []resourcev1.CounterSet { return s.SharedCounters },
		declared.Each[resourcev1.CounterSet]{Most: resourcev1.ResourceSliceMaxCounterSets,
			Same: func(a, b *resourcev1.CounterSet) bool { return a.Name == b.Name },
			Check: func(now, old *resourcev1.CounterSet, at *kinds.Path) {
				r.label(now.Name, at.Child("name"))
				declared.Field(r.Rules, now, old, at.Child("counters"), func(c *resourcev1.CounterSet) map[string]resourcev1.Counter { return c.Counters }, r.counters)
			}})
}

func (r rules) label(name string, at *kinds.Path) {
	declared.Required(r.Rules, &name, nil, at, func(s *string) string { return *s }, validate.ShortName[string])
}

// counters have names, those that are new valid ones.
func (r rules) counters(now, old map[string]resourcev1.Counter, at *kinds.Path) {
	if len(now) == 0 {
		r.Required(at, "")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, had := old[name]; !had {
			r.Join(validate.ShortName(context.Background(), operation.Operation{}, at.Field(), &name, nil))
		}
	}
}

func (r rules) device(now, _ *resourcev1.Device, at *kinds.Path) {
	for _, name := range slices.Sorted(maps.Keys(now.Attributes)) {
		a := now.Attributes[name]
		r.attribute(&a, at.Child("attributes").Key(string(name)))
	}
	declared.List(r.Rules, now, nil, at.Child("consumesCounters"), func(d *resourcev1.Device) []resourcev1.DeviceCounterConsumption { return d.ConsumesCounters },
		declared.Each[resourcev1.DeviceCounterConsumption]{Most: resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice,
			Same: func(a, b *resourcev1.DeviceCounterConsumption) bool { return a.CounterSet == b.CounterSet },
			Check: func(now, _ *resourcev1.DeviceCounterConsumption, at *kinds.Path) {
				r.label(now.CounterSet, at.Child("counterSet"))
				r.counters(now.Counters, nil, at.Child("counters"))
			}})
	for i := range now.Taints {
		r.taint(&now.Taints[i], nil, at.Child("taints").Index(i))
	}
	r.conditions(now.BindingConditions, now.BindingFailureConditions, at)
}

func (r rules) conditions(good, bad []string, at *kinds.Path) {
	if n := len(good); n > resourcev1.BindingConditionsMaxSize {
		r.TooMany(at.Child("bindingConditions"), n, resourcev1.BindingConditionsMaxSize)
	}
	if n := len(bad); n > resourcev1.BindingFailureConditionsMaxSize {
		r.TooMany(at.Child("bindingFailureConditions"), n, resourcev1.BindingFailureConditionsMaxSize)
	}
}

var attributeValues = validate.NewUnionMembership(validate.NewUnionMember("int"), validate.NewUnionMember("bool"), validate.NewUnionMember("string"), validate.NewUnionMember("version"),
	validate.NewUnionMember("ints"), validate.NewUnionMember("bools"), validate.NewUnionMember("strings"), validate.NewUnionMember("versions"))

// attribute has exactly one value, or one list of them.
func (r rules) attribute(a *resourcev1.DeviceAttribute, at *kinds.Path) {
	set := func(is bool) validate.ExtractorFn[*resourcev1.DeviceAttribute, bool] {
		return func(*resourcev1.DeviceAttribute) bool { return is }
	}
	r.Join(validate.Union(context.Background(), operation.Operation{Type: operation.Create}, at.Field(), a, nil, attributeValues,
		set(a.IntValue != nil), set(a.BoolValue != nil), set(a.StringValue != nil), set(a.VersionValue != nil),
		set(len(a.IntValues) > 0), set(len(a.BoolValues) > 0), set(len(a.StringValues) > 0), set(len(a.VersionValues) > 0)))
	for i, s := range a.StringValues {
		r.Join(validate.MaxBytes(context.Background(), operation.Operation{}, at.Child("strings").Index(i).Field(), &s, nil, resourcev1.DeviceAttributeMaxValueLength))
	}
}

// status is what a claim has got. What has been given out is never given anew.
func (r rules) status(now, old *resourcev1.ResourceClaimStatus, at *kinds.Path) {
	declared.Pointer(r.Rules, now, old, at.Child("allocation"), func(s *resourcev1.ResourceClaimStatus) *resourcev1.AllocationResult { return s.Allocation },
		func(now, old *resourcev1.AllocationResult, at *kinds.Path) {
			if old != nil {
				r.Invalid(at, nil, "field cannot be modified once set")
				return
			}
			r.allocation(&now.Devices, at.Child("devices"))
		})
	declared.List(r.Rules, now, old, at.Child("reservedFor"), func(s *resourcev1.ResourceClaimStatus) []resourcev1.ResourceClaimConsumerReference {
		return s.ReservedFor
	},
		declared.Each[resourcev1.ResourceClaimConsumerReference]{Most: resourcev1.ResourceClaimReservedForMaxSize,
			Same: func(a, b *resourcev1.ResourceClaimConsumerReference) bool { return a.UID == b.UID }})
	declared.List(r.Rules, now, old, at.Child("devices"), func(s *resourcev1.ResourceClaimStatus) []resourcev1.AllocatedDeviceStatus { return s.Devices },
		declared.Each[resourcev1.AllocatedDeviceStatus]{Check: r.deviceStatus,
			Same: func(a, b *resourcev1.AllocatedDeviceStatus) bool {
				return a.Driver == b.Driver && a.Device == b.Device && a.Pool == b.Pool && (a.ShareID == nil) == (b.ShareID == nil) && kinds.Deref(a.ShareID) == kinds.Deref(b.ShareID)
			}})
}

func (r rules) allocation(now *resourcev1.DeviceAllocationResult, at *kinds.Path) {
	declared.List(r.Rules, now, nil, at.Child("results"), func(a *resourcev1.DeviceAllocationResult) []resourcev1.DeviceRequestAllocationResult {
		return a.Results
	},
		declared.Each[resourcev1.DeviceRequestAllocationResult]{Most: resourcev1.AllocationResultsMaxSize, Check: func(now, _ *resourcev1.DeviceRequestAllocationResult, at *kinds.Path) {
			declared.Required(r.Rules, now, nil, at.Child("driver"), func(a *resourcev1.DeviceRequestAllocationResult) string { return a.Driver }, driverRules...)
			declared.Required(r.Rules, now, nil, at.Child("pool"), func(a *resourcev1.DeviceRequestAllocationResult) string { return a.Pool }, validate.ResourcePoolName[string])
			r.tolerations(now.Tolerations, at)
			r.conditions(now.BindingConditions, now.BindingFailureConditions, at)
			if now.ShareID != nil {
				r.Join(validate.UUID(context.Background(), operation.Operation{}, at.Child("shareID").Field(), now.ShareID, nil))
			}
		}})
	declared.List(r.Rules, now, nil, at.Child("config"), func(a *resourcev1.DeviceAllocationResult) []resourcev1.DeviceAllocationConfiguration { return a.Config },
		declared.Each[resourcev1.DeviceAllocationConfiguration]{Most: 2 * resourcev1.DeviceConfigMaxSize, Check: func(now, _ *resourcev1.DeviceAllocationConfiguration, at *kinds.Path) {
			declared.Required(r.Rules, now, nil, at.Child("source"), func(c *resourcev1.DeviceAllocationConfiguration) resourcev1.AllocationConfigSource { return c.Source },
				declared.OneOf(resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass))
			r.references(now.Requests, at)
			r.opaque(&now.DeviceConfiguration, at)
		}})
}

func (r rules) deviceStatus(now, old *resourcev1.AllocatedDeviceStatus, at *kinds.Path) {
	declared.Pointer(r.Rules, now, old, at.Child("shareID"), func(s *resourcev1.AllocatedDeviceStatus) *string { return s.ShareID }, func(now, _ *string, at *kinds.Path) {
		r.Join(validate.UUID(context.Background(), operation.Operation{}, at.Field(), now, nil))
	})
	declared.Pointer(r.Rules, now, old, at.Child("networkData"), func(s *resourcev1.AllocatedDeviceStatus) *resourcev1.NetworkDeviceData { return s.NetworkData }, r.network)
}

func (r rules) network(now, old *resourcev1.NetworkDeviceData, at *kinds.Path) {
	declared.Text(r.Rules, now, old, at.Child("interfaceName"), func(d *resourcev1.NetworkDeviceData) string { return d.InterfaceName },
		declared.MaxBytes[string](resourcev1.NetworkDeviceDataInterfaceNameMaxLength))
	declared.List(r.Rules, now, old, at.Child("ips"), func(d *resourcev1.NetworkDeviceData) []string { return d.IPs },
		declared.Each[string]{Most: resourcev1.NetworkDeviceDataMaxIPs, Same: declared.Equal[string]})
	declared.Text(r.Rules, now, old, at.Child("hardwareAddress"), func(d *resourcev1.NetworkDeviceData) string { return d.HardwareAddress },
		declared.MaxBytes[string](resourcev1.NetworkDeviceDataHardwareAddressMaxLength))
}
