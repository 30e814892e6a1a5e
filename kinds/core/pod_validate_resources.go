package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podresources "k8s.io/component-helpers/resource"

	"github.com/sampan-dev/sampan/kinds"
)

// whose says what resources are for, and so which there may be.
type whose int

const (
	ofContainer whose = iota
	ofPod
)

func (w whose) check(name corev1.ResourceName, at *kinds.Path) field.ErrorList {
	if w == ofPod {
		return podResourceName(name, at)
	}
	return containerResourceName(name, at)
}

// validateResources checks limits and requests; names says which resources there
// may be, claims which claims may be named.
func validateResources(r *corev1.ResourceRequirements, names whose, claims sets.Set[string], at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	limits, requests := at.Child("limits"), at.Child("requests")
	for resource, amount := range r.Limits {
		here := limits.Key(string(resource))
		checkAmount(&f, resource, amount, names, here)
		checkPages(&f, resource, amount, here)
	}
	for resource, request := range r.Requests {
		here := requests.Key(string(resource))
		checkAmount(&f, resource, request, names, here)
		limit, limited := r.Limits[resource]
		switch {
		case !limited:
			if !mayOvercommit(resource) {
				f.Required(limits, "Limit must be set for non overcommitable resources")
			}
		case !mayOvercommit(resource) && request.Cmp(limit) != 0:
			f.Invalid(requests, request.String(), fmt.Sprintf("must be equal to %s limit of %s", resource, limit.String()))
		case request.Cmp(limit) > 0:
			f.Invalid(requests, request.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", resource, limit.String()))
		}
		checkPages(&f, resource, request, here)
	}
	if (hasHugePages(r.Limits) || hasHugePages(r.Requests)) && !hasCompute(r.Limits) && !hasCompute(r.Requests) {
		f.Forbidden(at, "HugePages require cpu or memory")
	}
	checkClaimNames(&f, r.Claims, claims, at.Child("claims"))
	return f.List()
}

func checkAmount(f *kinds.Faults, what corev1.ResourceName, amount resource.Quantity, names whose, at *kinds.Path) {
	f.Join(names.check(what, at))
	f.Join(validateQuantity(what, amount, at))
}

// indivisible is what is wrong with an amount of huge pages.
const indivisible = "is not positive integer multiple of"

func checkPages(f *kinds.Faults, what corev1.ResourceName, amount resource.Quantity, at *kinds.Path) {
	if isHugePage(what) && !divisible(what, amount) {
		f.Invalid(at, amount.String(), fmt.Sprintf("%s "+indivisible+" %s", amount.String(), what))
	}
}

// divisible: the amount is a whole number of pages of the size in the name.
func divisible(name corev1.ResourceName, amount resource.Quantity) bool {
	page, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || page.Sign() <= 0 || page.MilliValue()%1000 != 0 {
		return false
	}
	return amount.Value()%page.Value() == 0
}

func hasHugePages(list corev1.ResourceList) bool {
	for name := range list {
		if isHugePage(name) {
			return true
		}
	}
	return false
}

func hasCompute(list corev1.ResourceList) bool {
	_, cpu := list[corev1.ResourceCPU]
	_, memory := list[corev1.ResourceMemory]
	return cpu || memory
}

// checkClaimNames: each claim, or request in it, is named once, and exists.
func checkClaimNames(f *kinds.Faults, claims []corev1.ResourceClaim, known sets.Set[string], at *kinds.Path) {
	whole, part := sets.New[string](), map[string]sets.Set[string]{}
	for i, claim := range claims {
		here := at.Index(i)
		if !f.NonEmpty(here, claim.Name) {
			continue
		}
		requests := part[claim.Name]
		switch {
		case whole.Has(claim.Name):
			f.Duplicate(here, claim.Name)
		case claim.Request == "":
			for range requests {
				f.Duplicate(here, claim.Name)
			}
			whole.Insert(claim.Name)
		default:
			f.Each(here.Child("request"), claim.Request, validation.IsDNS1123Label(claim.Request))
			if requests.Has(claim.Request) {
				f.Duplicate(here, claim.Name+"/"+claim.Request)
			}
			if requests == nil {
				part[claim.Name] = sets.New[string]()
			}
			part[claim.Name].Insert(claim.Request)
		}
		if !known.Has(claim.Name) {
			f.Join(field.ErrorList{unknownClaim(here, claim.Name, known)})
		}
	}
}

func unknownClaim(at *kinds.Path, name string, known sets.Set[string]) *field.Error {
	missing := field.NotFound(at.Field(), name)
	missing.Detail = "must be one of the names in pod.spec.resourceClaims which is empty"
	if len(known) > 0 {
		missing.Detail = "must be one of the names in pod.spec.resourceClaims: " + strings.Join(sets.List(known), ", ")
	}
	return missing
}

// checkResourceClaims checks the pod's own list of claims.
func (c *podCheck) checkResourceClaims(at *kinds.Path) {
	names := sets.New[string]()
	for i := range c.spec.ResourceClaims {
		claim, here := &c.spec.ResourceClaims[i], at.Index(i)
		if claim.Name != "" {
			c.claims.Insert(claim.Name)
		}
		if c.mirror() {
			c.Forbidden(kinds.NewPath(""), "static pods do not support resource claims")
			continue
		}
		switch {
		case !c.NonEmpty(here.Child("name"), claim.Name):
		case names.Has(claim.Name):
			c.Duplicate(here.Child("name"), claim.Name)
		default:
			c.label(here.Child("name"), claim.Name)
			names.Insert(claim.Name)
		}
		switch {
		case claim.ResourceClaimName != nil && claim.ResourceClaimTemplateName != nil:
			c.Invalid(here, *claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
		case claim.ResourceClaimName == nil && claim.ResourceClaimTemplateName == nil:
			c.Invalid(here, *claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
		}
		c.optionalName(here.Child("resourceClaimName"), claim.ResourceClaimName)
		c.optionalName(here.Child("resourceClaimTemplateName"), claim.ResourceClaimTemplateName)
	}
}

func (c *podCheck) mirror() bool {
	if c.meta == nil {
		return false
	}
	_, mirror := c.meta.Annotations[MirrorPodAnnotation]
	return mirror
}

func (c *podCheck) optionalName(at *kinds.Path, name *string) {
	if name != nil {
		c.Each(at, *name, apivalidation.NameIsDNSSubdomain(*name, false))
	}
}

// checkPodResources checks what is given to the pod as a whole: it must be
// enough for its containers.
func (c *podCheck) checkPodResources(spec *kinds.Path) {
	r, at := c.spec.Resources, spec.Child("resources")
	if r == nil {
		return
	}
	if c.spec.OS != nil && c.spec.OS.Name == corev1.Windows {
		c.Forbidden(at, "may not be set for a windows pod")
		return
	}
	if r.Claims != nil {
		c.Forbidden(at.Child("claims"), "claims may not be set for Resources at pod-level")
	}
	c.Join(validateResources(r, ofPod, c.claims, at))
	pod := &corev1.Pod{Spec: *c.spec}
	for name, sum := range podresources.AggregateContainerRequests(pod, podresources.PodResourcesOptions{}) {
		if have, ok := r.Requests[name]; ok && sum.Cmp(have) > 0 {
			c.Invalid(at.Child("requests").Key(string(name)), have.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", sum.String()))
		}
	}
	for name, sum := range podresources.AggregateContainerLimits(pod, podresources.PodResourcesOptions{}) {
		if have, ok := r.Limits[name]; ok && isHugePage(name) && sum.Cmp(have) > 0 {
			c.Invalid(at.Child("limits").Key(string(name)), have.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container limits of %s", sum.String()))
		}
	}
	for i := range c.spec.Containers {
		for name, limit := range c.spec.Containers[i].Resources.Limits {
			if have, ok := r.Limits[name]; ok && limit.Cmp(have) > 0 {
				c.Invalid(at.Child("containers").Index(i).Key(string(name)).Child("limits"), limit.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", have.String()))
			}
		}
	}
}
