package resource

import (
	"fmt"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

var spec = field.NewPath("spec")

func validateClass(c *resourcev1.DeviceClass) field.ErrorList {
	var f kinds.Faults
	selectors(&f, c.Spec.Selectors, spec.Child("selectors"))
	at := spec.Child("config")
	if n := len(c.Spec.Config); n > resourcev1.DeviceConfigMaxSize {
		f.TooMany(at, n, resourcev1.DeviceConfigMaxSize)
	}
	for i := range c.Spec.Config {
		configuration(&f, &c.Spec.Config[i].DeviceConfiguration, at.Index(i))
	}
	return f.List()
}

func validateClassUpdate(c, _ *resourcev1.DeviceClass) field.ErrorList { return validateClass(c) }

func validateClaim(c *resourcev1.ResourceClaim) field.ErrorList {
	var f kinds.Faults
	devices(&f, &c.Spec.Devices, spec.Child("devices"))
	return f.List()
}

func validateClaimUpdate(c, old *resourcev1.ResourceClaim) field.ErrorList {
	var f kinds.Faults
	f.Immutable(spec, c.Spec, old.Spec)
	return f.List()
}

func validateTemplate(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
	var f kinds.Faults
	devices(&f, &t.Spec.Spec.Devices, spec.Child("spec", "devices"))
	return f.List()
}

func validateTemplateUpdate(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
	var f kinds.Faults
	f.Immutable(spec, t.Spec, old.Spec)
	return f.List()
}

// devices checks what is asked for.
func devices(f *kinds.Faults, d *resourcev1.DeviceClaim, at *field.Path) {
	if n := len(d.Requests); n > resourcev1.DeviceRequestsMaxSize {
		f.TooMany(at.Child("requests"), n, resourcev1.DeviceRequestsMaxSize)
	}
	seen := map[string]bool{}
	for i := range d.Requests {
		r, here := &d.Requests[i], at.Child("requests").Index(i)
		if seen[r.Name] {
			f.Duplicate(here, r.Name)
		}
		seen[r.Name] = true
		request(f, r, here)
	}
	if n := len(d.Constraints); n > resourcev1.DeviceConstraintsMaxSize {
		f.TooMany(at.Child("constraints"), n, resourcev1.DeviceConstraintsMaxSize)
	}
	for i := range d.Constraints {
		here := at.Child("constraints").Index(i)
		references(f, d, d.Constraints[i].Requests, here.Child("requests"))
		if d.Constraints[i].MatchAttribute == nil && d.Constraints[i].DistinctAttribute == nil {
			f.Required(here.Child("matchAttribute"), "")
		}
	}
	if n := len(d.Config); n > resourcev1.DeviceConfigMaxSize {
		f.TooMany(at.Child("config"), n, resourcev1.DeviceConfigMaxSize)
	}
	for i := range d.Config {
		here := at.Child("config").Index(i)
		references(f, d, d.Config[i].Requests, here.Child("requests"))
		configuration(f, &d.Config[i].DeviceConfiguration, here)
	}
}

// references are names of requests, or of their alternatives behind a slash.
func references(f *kinds.Faults, d *resourcev1.DeviceClaim, names []string, at *field.Path) {
	for i, name := range names {
		main, sub, nested := strings.Cut(name, "/")
		known := slices.ContainsFunc(d.Requests, func(r resourcev1.DeviceRequest) bool {
			return r.Name == main && (!nested || slices.ContainsFunc(r.FirstAvailable, func(s resourcev1.DeviceSubRequest) bool { return s.Name == sub }))
		})
		if !known {
			f.Invalid(at.Index(i), name, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'")
		}
	}
}

func request(f *kinds.Faults, r *resourcev1.DeviceRequest, at *field.Path) {
	f.Each(at.Child("name"), r.Name, validation.IsDNS1123Label(r.Name))
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		f.Required(at, "exactly one of `exactly` or `firstAvailable` is required")
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		f.Invalid(at, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set")
	case r.Exactly != nil:
		e, here := r.Exactly, at.Child("exactly")
		amount(f, asked{e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations}, here)
	}
	if n := len(r.FirstAvailable); n > resourcev1.FirstAvailableDeviceRequestMaxSize {
		f.TooMany(at.Child("firstAvailable"), n, resourcev1.FirstAvailableDeviceRequestMaxSize)
	}
	seen := map[string]bool{}
	for i := range r.FirstAvailable {
		s, here := &r.FirstAvailable[i], at.Child("firstAvailable").Index(i)
		f.Each(here.Child("name"), s.Name, validation.IsDNS1123Label(s.Name))
		if seen[s.Name] {
			f.Duplicate(here, s.Name)
		}
		seen[s.Name] = true
		amount(f, asked{s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations}, here)
	}
}

// asked is what requests and their alternatives have in common.
type asked struct {
	class       string
	selectors   []resourcev1.DeviceSelector
	mode        resourcev1.DeviceAllocationMode
	count       int64
	tolerations []resourcev1.DeviceToleration
}

func amount(f *kinds.Faults, a asked, at *field.Path) {
	if f.NonEmpty(at.Child("deviceClassName"), a.class) {
		f.Each(at.Child("deviceClassName"), a.class, validation.IsDNS1123Subdomain(a.class))
	}
	selectors(f, a.selectors, at.Child("selectors"))
	switch a.mode {
	case resourcev1.DeviceAllocationModeAll:
		if a.count != 0 {
			f.Invalid(at.Child("count"), a.count, fmt.Sprintf("must not be specified when allocationMode is '%s'", a.mode))
		}
	case resourcev1.DeviceAllocationModeExactCount:
		if a.count <= 0 {
			f.Invalid(at.Child("count"), a.count, "must be greater than zero")
		}
	default:
		kinds.OneOf(f, at.Child("allocationMode"), a.mode, resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)
	}
	for i := range a.tolerations {
		toleration(f, &a.tolerations[i], at.Child("tolerations").Index(i))
	}
}

func toleration(f *kinds.Faults, t *resourcev1.DeviceToleration, at *field.Path) {
	if t.Key != "" {
		f.Each(at.Child("key"), t.Key, validation.IsQualifiedName(t.Key))
	}
	switch t.Operator {
	case resourcev1.DeviceTolerationOpExists:
		if t.Value != "" {
			f.Invalid(at.Child("value"), t.Value, "must be empty for operator `Exists`")
		}
	case resourcev1.DeviceTolerationOpEqual:
		if t.Key == "" {
			f.Required(at.Child("key"), "")
		}
		f.Each(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))
	default:
		kinds.OneOf(f, at.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)
	}
	if t.Effect != "" {
		kinds.OneOf(f, at.Child("effect"), t.Effect, effects...)
	}
}

var effects = []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}

// selectors must be there, and no longer than what is compiled.
func selectors(f *kinds.Faults, all []resourcev1.DeviceSelector, at *field.Path) {
	if n := len(all); n > resourcev1.DeviceSelectorsMaxSize {
		f.TooMany(at, n, resourcev1.DeviceSelectorsMaxSize)
	}
	for i := range all {
		here := at.Index(i).Child("cel")
		switch {
		case all[i].CEL == nil:
			f.Required(here, "")
		case strings.TrimSpace(all[i].CEL.Expression) == "":
			f.Required(here.Child("expression"), "")
		case len(all[i].CEL.Expression) > resourcev1.CELSelectorExpressionMaxLength:
			f.TooLong(here.Child("expression"), resourcev1.CELSelectorExpressionMaxLength)
		}
	}
}

func configuration(f *kinds.Faults, c *resourcev1.DeviceConfiguration, at *field.Path) {
	if c.Opaque == nil {
		f.Required(at.Child("opaque"), "")
		return
	}
	f.Join(core.ValidateDriverName(c.Opaque.Driver, at.Child("opaque", "driver")))
	parameters := at.Child("opaque", "parameters")
	switch raw := c.Opaque.Parameters.Raw; {
	case len(raw) == 0:
		f.Required(parameters, "")
	case len(raw) > resourcev1.OpaqueParametersMaxLength:
		f.TooLong(parameters, resourcev1.OpaqueParametersMaxLength)
	case raw[0] != '{':
		f.Invalid(parameters, "<value omitted>", "must be a valid JSON object")
	}
}

func validateClaimStatus(c, old *resourcev1.ResourceClaim) field.ErrorList {
	var f kinds.Faults
	at := field.NewPath("status")
	reserved(&f, c, old, at.Child("reservedFor"))
	now, was := c.Status.Allocation, old.Status.Allocation
	if now != nil && was != nil {
		f.Immutable(at.Child("allocation"), now, was)
	}
	if now != nil && was == nil {
		results := at.Child("allocation", "devices", "results")
		if n := len(now.Devices.Results); n > resourcev1.AllocationResultsMaxSize {
			f.TooMany(results, n, resourcev1.AllocationResultsMaxSize)
		}
		for i := range now.Devices.Results {
			r, here := &now.Devices.Results[i], results.Index(i)
			references(&f, &c.Spec.Devices, []string{r.Request}, here.Child("request"))
			f.Join(core.ValidateDriverName(r.Driver, here.Child("driver")))
			pool(&f, r.Pool, here.Child("pool"))
			f.Each(here.Child("device"), r.Device, validation.IsDNS1123Label(r.Device))
		}
	}
	for i := range c.Status.Devices {
		d := &c.Status.Devices[i]
		if now == nil || !slices.ContainsFunc(now.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool {
			return r.Driver == d.Driver && r.Pool == d.Pool && r.Device == d.Device
		}) {
			f.Invalid(at.Child("devices").Index(i), d.Driver+"/"+d.Pool+"/"+d.Device, "must be an allocated device in the claim")
		}
	}
	return f.List()
}

// reserved checks the users of a claim: there are none of what is not allocated,
// and no new ones of what is to go.
func reserved(f *kinds.Faults, c, old *resourcev1.ResourceClaim, at *field.Path) {
	users := c.Status.ReservedFor
	if n := len(users); n > resourcev1.ResourceClaimReservedForMaxSize {
		f.TooMany(at, n, resourcev1.ResourceClaimReservedForMaxSize)
	}
	seen := map[string]bool{}
	for i, u := range users {
		f.NonEmpty(at.Index(i).Child("resource"), u.Resource)
		f.NonEmpty(at.Index(i).Child("name"), u.Name)
		if f.NonEmpty(at.Index(i).Child("uid"), string(u.UID)) && seen[string(u.UID)] {
			f.Duplicate(at.Index(i), string(u.UID))
		}
		seen[string(u.UID)] = true
	}
	switch {
	case len(users) == 0:
	case c.Status.Allocation == nil:
		f.Forbidden(at, "may not be specified when `allocated` is not set")
	case c.DeletionTimestamp != nil:
		if slices.ContainsFunc(users, func(u resourcev1.ResourceClaimConsumerReference) bool {
			return !slices.Contains(old.Status.ReservedFor, u)
		}) {
			f.Forbidden(at, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")
		}
	}
}

// pool names are one or more subdomains, with slashes between them.
func pool(f *kinds.Faults, name string, at *field.Path) {
	if !f.NonEmpty(at, name) {
		return
	}
	if len(name) > resourcev1.PoolNameMaxLength {
		f.TooLong(at, resourcev1.PoolNameMaxLength)
	}
	for part := range strings.SplitSeq(name, "/") {
		f.Each(at, part, validation.IsDNS1123Subdomain(part))
	}
}
