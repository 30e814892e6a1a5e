package networking

import (
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// IPAddress is the kind that says whose an address is: its name is the address.
func IPAddress() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("IPAddress"),
		Resource: "ipaddresses",
		Singular: "ipaddress",
		Short:    []string{"ip"},
		Storage:  "ipaddresses",
		New:      func() kinds.Object { return &networkingv1.IPAddress{} },
		NewList:  func() runtime.Object { return &networkingv1.IPAddressList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			ValidateName:   addressName,
			Validate:       kinds.Check(validateIPAddress),
			ValidateUpdate: kinds.CheckUpdate(validateIPAddressUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(ipAddressTexts(), "Name", "ParentRef"),
			Row: kinds.Row(func(a *networkingv1.IPAddress, _ time.Time) []any {
				return []any{a.Name, parentCell(a.Spec.ParentRef)}
			}),
		},
	}
}

// addressName wants the one canonical form of an address.
func addressName(name string, _ bool) (messages []string) {
	for _, err := range validation.IsValidIP(&field.Path{}, name) {
		messages = append(messages, err.Detail)
	}
	return messages
}

// parentCell is "services/default/web".
func parentCell(p *networkingv1.ParentReference) string {
	if p == nil {
		return kinds.None
	}
	cell := strings.ToLower(schema.GroupResource{Group: p.Group, Resource: p.Resource}.String())
	if p.Namespace != "" {
		cell += "/" + p.Namespace
	}
	return cell + "/" + p.Name
}

func validateIPAddress(a *networkingv1.IPAddress) field.ErrorList {
	r := declared.Create()
	hand := parent(a, &r.Faults)
	return r.Behind(hand)
}

// parent checks whose an address is. What is missing goes to another list.
func parent(a *networkingv1.IPAddress, missing *kinds.Faults) field.ErrorList {
	var f kinds.Faults
	p, at := a.Spec.ParentRef, kinds.NewPath("spec").Child("parentRef")
	if p == nil {
		missing.Required(at, "")
		return nil
	}
	if p.Group != "" {
		f.Each(at.Child("group"), p.Group, validation.IsDNS1123Subdomain(p.Group))
	}
	if missing.NonEmpty(at.Child("resource"), p.Resource) {
		f.Each(at.Child("resource"), p.Resource, content.IsPathSegmentName(p.Resource))
	}
	if missing.NonEmpty(at.Child("name"), p.Name) {
		f.Each(at.Child("name"), p.Name, content.IsPathSegmentName(p.Name))
	}
	if p.Namespace != "" {
		f.Each(at.Child("namespace"), p.Namespace, content.IsPathSegmentName(p.Namespace))
	}
	return f.List()
}

func validateIPAddressUpdate(a, old *networkingv1.IPAddress) field.ErrorList {
	r := declared.Update()
	declared.Field(r, a, old, kinds.NewPath("spec").Child("parentRef"), func(a *networkingv1.IPAddress) *networkingv1.ParentReference { return a.Spec.ParentRef },
		func(now, _ *networkingv1.ParentReference, at *kinds.Path) {
			if now == nil {
				r.Faults.Required(at, "")
			}
			r.Immutable(at)
		})
	var f kinds.Faults
	found := parent(a, &f)
	f.Join(found)
	return r.Behind(f.List())
}
