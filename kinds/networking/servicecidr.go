package networking

import (
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/kinds"
)

// maxCIDRs is one for each family.
const maxCIDRs = 2

// ServiceCIDR is the kind for a range of service addresses.
func ServiceCIDR() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("ServiceCIDR"),
		Resource: "servicecidrs",
		Singular: "servicecidr",
		Storage:  "servicecidrs",
		New:      func() kinds.Object { return &networkingv1.ServiceCIDR{} },
		NewList:  func() runtime.Object { return &networkingv1.ServiceCIDRList{} },
		Strategy: kinds.Strategy{
			PrepareCreate:  kinds.Each(func(c *networkingv1.ServiceCIDR) { c.Status = networkingv1.ServiceCIDRStatus{} }),
			PrepareUpdate:  kinds.Pair(func(c, old *networkingv1.ServiceCIDR) { c.Status = old.Status }),
			Validate:       kinds.Check(validateServiceCIDR),
			ValidateUpdate: kinds.CheckUpdate(validateServiceCIDRUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(serviceCIDRTexts(), "Name", "CIDRs", "Age"),
			Row: kinds.Row(func(c *networkingv1.ServiceCIDR, now time.Time) []any {
				return []any{c.Name, strings.Join(c.Spec.CIDRs, ","), kinds.Created(c, now)}
			}),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusOnly(func(next, body *networkingv1.ServiceCIDR) { next.Status = body.Status }, nil),
		},
	}
}

func validateServiceCIDR(c *networkingv1.ServiceCIDR) field.ErrorList {
	var f kinds.Faults
	at, cidrs := kinds.NewPath("spec").Child("cidrs"), c.Spec.CIDRs
	switch {
	case len(cidrs) == 0:
		f.Required(at, "at least one CIDR required")
		return f.List()
	case len(cidrs) > maxCIDRs:
		f.Invalid(at, &c.Spec, "may only hold up to 2 values")
		return f.List()
	}
	for i, cidr := range cidrs {
		f.Join(validation.IsValidCIDR(at.Index(i).Field(), cidr))
	}
	if len(cidrs) == maxCIDRs {
		family := netutils.IPFamilyOfCIDRString(cidrs[0])
		if family == netutils.IPFamilyOfCIDRString(cidrs[1]) && family != netutils.IPFamilyUnknown {
			f.Invalid(at, cidrs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64")
		}
	}
	return f.List()
}

// validateServiceCIDRUpdate: a range stays; one of the other family may join it.
func validateServiceCIDRUpdate(c, old *networkingv1.ServiceCIDR) field.ErrorList {
	var f kinds.Faults
	at, now, was := kinds.NewPath("spec").Child("cidrs"), c.Spec.CIDRs, old.Spec.CIDRs
	if len(now) != len(was) && (len(was) != 1 || len(now) != maxCIDRs) {
		f.Invalid(at, now, apivalidation.FieldImmutableErrorMsg)
		return f.List()
	}
	for i := range was {
		if now[i] != was[i] {
			f.Invalid(at.Index(i), now[i], apivalidation.FieldImmutableErrorMsg)
		}
	}
	if len(now) > len(was) {
		f.Join(validateServiceCIDR(c))
	}
	return f.List()
}
