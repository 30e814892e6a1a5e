package resource

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/kinds/declared"
)

var spec = kinds.NewPath("spec")

func validateClass(c *resourcev1.DeviceClass) field.ErrorList { return class(c, nil) }

// validateClassUpdate leaves what has not changed alone: it was valid once.
func validateClassUpdate(c, old *resourcev1.DeviceClass) field.ErrorList { return class(c, old) }

func class(c, old *resourcev1.DeviceClass) field.ErrorList {
	var f kinds.Faults
	stored := old != nil && apiequality.Semantic.DeepEqual(c.Spec.Selectors, old.Spec.Selectors)
	selectors(&f, c.Spec.Selectors, spec.Child("selectors"), stored)
	stored = old != nil && apiequality.Semantic.DeepEqual(c.Spec.Config, old.Spec.Config)
	few(&f, c.Spec.Config, resourcev1.DeviceConfigMaxSize, spec.Child("config"), func(c *resourcev1.DeviceClassConfiguration, here *kinds.Path) {
		configuration(&f, &c.DeviceConfiguration, here, stored)
	})
	if name := c.Spec.ExtendedResourceName; name != nil && !extendedName(*name) {
		f.Invalid(spec.Child("extendedResourceName"), *name, "must be a valid extended resource name")
	}
	r, was := rules{declared.For(old)}, (*resourcev1.DeviceClassSpec)(nil)
	if old != nil {
		was = &old.Spec
	}
	declared.Text(r.Rules, &c.Name, nil, kinds.NewPath("metadata").Child("name"), func(s *string) string { return *s }, validate.LongName[string])
	r.class(&c.Spec, was, spec)
	return r.Behind(f.List())
}

// extendedName says whether a resource may be a class's: qualified, and none of
// Kubernetes' own.
func extendedName(name string) bool {
	return strings.Contains(name, "/") && !strings.Contains(name, corev1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) &&
		len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) == 0
}

func validateClaim(c *resourcev1.ResourceClaim) field.ErrorList {
	var f kinds.Faults
	devices(&f, &c.Spec.Devices, spec.Child("devices"))
	r := rules{declared.Create()}
	r.claim(&c.Spec.Devices, nil, spec.Child("devices"))
	return r.Behind(f.List())
}

func validateClaimUpdate(c, old *resourcev1.ResourceClaim) field.ErrorList {
	r := declared.Update()
	declared.Field(r, c, old, spec, func(c *resourcev1.ResourceClaim) resourcev1.ResourceClaimSpec { return c.Spec },
		func(_, _ resourcev1.ResourceClaimSpec, at *kinds.Path) { r.Immutable(at) })
	return r.List()
}

func validateTemplate(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
	r := rules{declared.Create()}
	r.claim(&t.Spec.Spec.Devices, nil, spec.Child("spec").Child("devices"))
	return r.Behind(template(t))
}

func template(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
	var f kinds.Faults
	f.Join(metav1validation.ValidateLabels(t.Spec.Labels, spec.Child("metadata").Child("labels").Field()))
	f.Join(apivalidation.ValidateAnnotations(t.Spec.Annotations, spec.Child("metadata").Child("annotations").Field()))
	f.Join(core.TemplateMeta(&t.Spec.ObjectMeta, spec.Child("metadata")))
	devices(&f, &t.Spec.Spec.Devices, spec.Child("spec").Child("devices"))
	return f.List()
}

func validateTemplateUpdate(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
	var f kinds.Faults
	f.Join(template(t))
	f.Immutable(spec, t.Spec, old.Spec)
	r := rules{declared.Update()}
	if !apiequality.Semantic.DeepEqual(t.Spec.Spec.Devices, old.Spec.Spec.Devices) {
		r.claim(&t.Spec.Spec.Devices, &old.Spec.Spec.Devices, spec.Child("spec").Child("devices"))
	}
	return r.Behind(f.List())
}

// devices checks what is asked for.
func devices(f *kinds.Faults, d *resourcev1.DeviceClaim, at *kinds.Path) {
	few(f, d.Requests, resourcev1.DeviceRequestsMaxSize, at.Child("requests"), func(r *resourcev1.DeviceRequest, here *kinds.Path) {
		request(f, r, here)
	})
	distinct(f, d.Requests, at.Child("requests"), func(r *resourcev1.DeviceRequest) string { return r.Name })
	few(f, d.Constraints, resourcev1.DeviceConstraintsMaxSize, at.Child("constraints"), func(c *resourcev1.DeviceConstraint, here *kinds.Path) {
		constraint(f, d, c, here)
	})
	few(f, d.Config, resourcev1.DeviceConfigMaxSize, at.Child("config"), func(c *resourcev1.DeviceClaimConfiguration, here *kinds.Path) {
		references(f, d, c.Requests, here.Child("requests"))
		configuration(f, &c.DeviceConfiguration, here, false)
	})
}

// few checks the items of a list, unless there are too many to look at.
func few[T any](f *kinds.Faults, list []T, most int, at *kinds.Path, check func(item *T, at *kinds.Path)) {
	if len(list) > most {
		f.TooMany(at, len(list), most)
		return
	}
	for i := range list {
		check(&list[i], at.Index(i))
	}
}

// distinct complains about items that have the key of an earlier one.
func distinct[T any, K comparable](f *kinds.Faults, list []T, at *kinds.Path, key func(*T) K) {
	seen := map[K]bool{}
	for i := range list {
		k := key(&list[i])
		if seen[k] {
			f.Duplicate(at.Index(i), k)
		}
		seen[k] = true
	}
}

func constraint(f *kinds.Faults, d *resourcev1.DeviceClaim, c *resourcev1.DeviceConstraint, at *kinds.Path) {
	references(f, d, c.Requests, at.Child("requests"))
	switch {
	case c.MatchAttribute != nil:
		fullName(f, string(*c.MatchAttribute), at.Child("matchAttribute"))
	case c.DistinctAttribute != nil:
		fullName(f, string(*c.DistinctAttribute), at.Child("distinctAttribute"))
	default:
		f.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`)
	}
}

const noReference = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"

// references are names of requests, or of their alternatives behind a slash.
func references(f *kinds.Faults, d *resourcev1.DeviceClaim, names []string, at *kinds.Path) {
	few(f, names, resourcev1.DeviceRequestsMaxSize, at, func(name *string, here *kinds.Path) { reference(f, d, *name, here) })
	distinct(f, names, at, func(name *string) string { return *name })
}

func reference(f *kinds.Faults, d *resourcev1.DeviceClaim, name string, at *kinds.Path) {
	parts := strings.Split(name, "/")
	if len(parts) > 2 {
		f.Invalid(at, name, noReference)
		return
	}
	for _, part := range parts {
		f.Each(at, part, validation.IsDNS1123Label(part))
	}
	known := slices.ContainsFunc(d.Requests, func(r resourcev1.DeviceRequest) bool {
		return r.Name == parts[0] && (len(parts) == 1 || slices.ContainsFunc(r.FirstAvailable, func(s resourcev1.DeviceSubRequest) bool { return s.Name == parts[1] }))
	})
	if !known {
		f.Invalid(at, name, noReference)
	}
}

func request(f *kinds.Faults, r *resourcev1.DeviceRequest, at *kinds.Path) {
	f.Each(at.Child("name"), r.Name, validation.IsDNS1123Label(r.Name))
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		f.Required(at, "exactly one of `exactly` or `firstAvailable` is required")
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		f.Invalid(at, nil, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set")
	case r.Exactly != nil:
		e, here := r.Exactly, at.Child("exactly")
		amount(f, asked{e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations, e.Capacity}, here)
	default:
		here := at.Child("firstAvailable")
		few(f, r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize, here, func(s *resourcev1.DeviceSubRequest, here *kinds.Path) {
			f.Each(here.Child("name"), s.Name, validation.IsDNS1123Label(s.Name))
			amount(f, asked{s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations, s.Capacity}, here)
		})
		distinct(f, r.FirstAvailable, here, func(s *resourcev1.DeviceSubRequest) string { return s.Name })
	}
}

// asked is what requests and their alternatives have in common.
type asked struct {
	class       string
	selectors   []resourcev1.DeviceSelector
	mode        resourcev1.DeviceAllocationMode
	count       int64
	tolerations []resourcev1.DeviceToleration
	capacity    *resourcev1.CapacityRequirements
}

func amount(f *kinds.Faults, a asked, at *kinds.Path) {
	if f.NonEmpty(at.Child("deviceClassName"), a.class) {
		f.Each(at.Child("deviceClassName"), a.class, validation.IsDNS1123Subdomain(a.class))
	}
	selectors(f, a.selectors, at.Child("selectors"), false)
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

func toleration(f *kinds.Faults, t *resourcev1.DeviceToleration, at *kinds.Path) {
	if t.Key != "" {
		f.Each(at.Child("key"), t.Key, validation.IsQualifiedName(t.Key))
	}
	switch t.Operator {
	case resourcev1.DeviceTolerationOpExists:
		if t.Value != "" {
			f.Invalid(at.Child("value"), t.Value, "must be empty for operator `Exists`")
		}
	case resourcev1.DeviceTolerationOpEqual:
		f.Each(at.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))
	default:
		kinds.RequiredOneOf(f, at.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)
	}
	if t.Effect != "" {
		kinds.OneOf(f, at.Child("effect"), t.Effect, effects...)
	}
}

var effects = []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}

// configuration checks a driver's parameters; stored ones may be longer than new ones.
func configuration(f *kinds.Faults, c *resourcev1.DeviceConfiguration, at *kinds.Path, stored bool) {
	if c.Opaque == nil {
		f.Required(at.Child("opaque"), "")
		return
	}
	f.Join(core.ValidateDriverName(c.Opaque.Driver, at.Child("opaque").Child("driver")))
	most := resourcev1.OpaqueParametersMaxLength
	if stored {
		most = math.MaxInt
	}
	object(f, c.Opaque.Parameters.Raw, most, at.Child("opaque").Child("parameters"))
}

// object must be a JSON object of bounded size.
func object(f *kinds.Faults, raw []byte, most int, at *kinds.Path) {
	if len(raw) > most {
		f.TooLong(at, most)
		return
	}
	var v any
	err := json.Unmarshal(raw, &v)
	_, is := v.(map[string]any)
	switch {
	case len(raw) == 0, err == nil && v == nil:
		f.Required(at, "")
	case err != nil:
		f.Invalid(at, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))
	case !is:
		f.Invalid(at, "<value omitted>", "must be a valid JSON object")
	}
}

// qualified names are C identifiers, with a driver's or another domain before them
// or without.
func qualified(f *kinds.Faults, name string, at *kinds.Path) {
	domain, id, found := strings.Cut(name, "/")
	if !found {
		identifier(f, name, at)
		return
	}
	if strings.Contains(id, "/") {
		return // upstream's rule
	}
	if domain == "" {
		f.Invalid(at, "", "the domain must not be empty")
	} else {
		f.Join(core.ValidateDriverName(domain, at))
	}
	if id == "" {
		f.Invalid(at, "", "the name must not be empty")
	} else {
		identifier(f, id, at)
	}
}

// shorten is how a name is shown as a key: one that is longer than any valid one
// loses its middle.
func shorten(name string) string {
	const most, dots = resourcev1.DeviceMaxDomainLength + 1 + resourcev1.DeviceMaxIDLength, "..."
	if len(name) <= most {
		return name
	}
	left := most - len(dots)
	return name[:(left+1)/2] + dots + name[len(name)-left/2:]
}

func identifier(f *kinds.Faults, id string, at *kinds.Path) {
	if len(id) > resourcev1.DeviceMaxIDLength {
		f.TooLong(at, resourcev1.DeviceMaxIDLength)
	}
	f.Each(at, id, validation.IsCIdentifier(id))
}

func fullName(f *kinds.Faults, name string, at *kinds.Path) {
	qualified(f, name, at)
	if !strings.Contains(name, "/") {
		f.Invalid(at, name, "a fully qualified name must be a domain and a name separated by a slash")
	}
}

// pool names are one or more subdomains, with slashes between them.
func pool(f *kinds.Faults, name string, at *kinds.Path) {
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
