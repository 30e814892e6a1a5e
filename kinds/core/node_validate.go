package core

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/kinds"
)

// declaredFeature is "Feature" or "Feature/part".
var declaredFeature = regexp.MustCompile(`^[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*$`)

func validateNode(n *corev1.Node) field.ErrorList {
	var f kinds.Faults
	checkTaints(&f, n.Spec.Taints, field.NewPath("metadata", "taints"))
	checkNodeResources(&f, n)
	checkDeclaredFeatures(&f, n.Status.DeclaredFeatures, field.NewPath("status", "declaredFeatures"))
	cidrs := field.NewPath("spec", "podCIDRs")
	for i, cidr := range n.Spec.PodCIDRs {
		f.Join(validation.IsValidCIDRForLegacyField(cidrs.Index(i), cidr, strictIPs, nil))
	}
	if len(n.Spec.PodCIDRs) > 1 {
		dual, err := netutils.IsDualStackCIDRStrings(n.Spec.PodCIDRs)
		if err != nil {
			f.Join(field.ErrorList{field.InternalError(cidrs, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err))})
		}
		if !dual || len(n.Spec.PodCIDRs) > 2 {
			f.Invalid(cidrs, n.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family")
		}
	}
	return f.List()
}

// checkTaints: a key may be there once for each effect.
func checkTaints(f *kinds.Faults, taints []corev1.Taint, at *field.Path) {
	seen := map[string]bool{}
	for i, taint := range taints {
		here := at.Index(i)
		f.Join(metavalidation.ValidateLabelName(taint.Key, here.Child("key")))
		if messages := validation.IsValidLabelValue(taint.Value); len(messages) > 0 {
			f.Invalid(here.Child("value"), taint.Value, strings.Join(messages, ";"))
		}
		if f.NonEmpty(here.Child("effect"), string(taint.Effect)) {
			validateTaintEffect(f, taint.Effect, here.Child("effect"))
		}
		key := string(taint.Effect) + " " + taint.Key
		if seen[key] {
			twice := field.Duplicate(here, kinds.Shown{Value: taint})
			twice.Detail = "taints must be unique by key and effect pair"
			f.Join(field.ErrorList{twice})
		}
		seen[key] = true
	}
}

func checkNodeResources(f *kinds.Faults, n *corev1.Node) {
	for name, amount := range n.Status.Capacity {
		f.Join(validateQuantity(name, amount, field.NewPath("status", "capacity", string(name))))
	}
	for name, amount := range n.Status.Allocatable {
		f.Join(validateQuantity(name, amount, field.NewPath("status", "allocatable", string(name))))
	}
}

func checkDeclaredFeatures(f *kinds.Faults, features []string, at *field.Path) {
	for i, feature := range features {
		here := at.Index(i)
		switch {
		case len(feature) > validation.DNS1123SubdomainMaxLength:
			f.Invalid(here, feature, fmt.Sprintf("invalid feature name %q: must be no more than %d characters", feature, validation.DNS1123SubdomainMaxLength))
		case !declaredFeature.MatchString(feature):
			f.Invalid(here, feature, fmt.Sprintf("invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes", feature))
		}
		switch {
		case i == 0:
		case features[i-1] == feature:
			f.Duplicate(here, feature)
		case features[i-1] > feature:
			f.Invalid(here, feature, "list must be sorted alphabetically")
		}
	}
}

// validateNodeUpdate: what the node's network and its cloud were told stays.
func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	var f kinds.Faults
	f.Join(validateNode(n))
	seen := map[corev1.NodeAddress]bool{}
	for i, address := range n.Status.Addresses {
		if seen[address] {
			f.Duplicate(field.NewPath("status", "addresses").Index(i), address)
		}
		seen[address] = true
	}
	if len(old.Spec.PodCIDRs) > 0 && !kinds.Same(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		f.Forbidden(field.NewPath("spec", "podCIDRs"), "node updates may not change podCIDR except from \"\" to valid")
	}
	provider := field.NewPath("spec", "providerID")
	switch was, now := old.Spec.ProviderID, n.Spec.ProviderID; {
	case was == "" || was == now:
	case now == "":
		f.Invalid(provider, nil, "field cannot be cleared once set")
	default:
		f.Invalid(provider, nil, "field cannot be modified once set")
	}
	checkNodeConfig(&f, n)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		f.Forbidden(field.NewPath("spec", "externalID"), "may not be updated")
	}
	return f.List()
}
