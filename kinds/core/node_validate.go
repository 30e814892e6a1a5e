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
	checkTaints(&f, n.Spec.Taints, kinds.NewPath("metadata").Child("taints"))
	checkNodeResources(&f, n)
	checkDeclaredFeatures(&f, n.Status.DeclaredFeatures, kinds.NewPath("status").Child("declaredFeatures"))
	cidrs := kinds.NewPath("spec").Child("podCIDRs")
	for i, cidr := range n.Spec.PodCIDRs {
		f.Join(validation.IsValidCIDRForLegacyField(cidrs.Index(i).Field(), cidr, strictIPs, nil))
	}
	if len(n.Spec.PodCIDRs) > 1 {
		dual, err := netutils.IsDualStackCIDRStrings(n.Spec.PodCIDRs)
		if err != nil {
			f.Join(field.ErrorList{field.InternalError(cidrs.Field(), fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err))})
		}
		if !dual || len(n.Spec.PodCIDRs) > 2 {
			f.Invalid(cidrs, n.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family")
		}
	}
	return f.List()
}

// checkTaints: a key may be there once for each effect.
func checkTaints(f *kinds.Faults, taints []corev1.Taint, at *kinds.Path) {
	seen := map[string]bool{}
	for i, taint := range taints {
		here := at.Index(i)
		f.JoinAt(here.Child("key"), metavalidation.ValidateLabelName(taint.Key, kinds.Here))
		if messages := validation.IsValidLabelValue(taint.Value); len(messages) > 0 {
			f.Invalid(here.Child("value"), taint.Value, strings.Join(messages, ";"))
		}
		if f.NonEmpty(here.Child("effect"), string(taint.Effect)) {
			validateTaintEffect(f, taint.Effect, here.Child("effect"))
		}
		key := string(taint.Effect) + " " + taint.Key
		if seen[key] {
			twice := field.Duplicate(here.Field(), kinds.Shown{Value: taint})
			twice.Detail = "taints must be unique by key and effect pair"
			f.Join(field.ErrorList{twice})
		}
		seen[key] = true
	}
}

func checkNodeResources(f *kinds.Faults, n *corev1.Node) {
	for name, amount := range n.Status.Capacity {
		f.Join(validateQuantity(name, amount, kinds.NewPath("status").Child("capacity").Child(string(name))))
	}
	for name, amount := range n.Status.Allocatable {
		f.Join(validateQuantity(name, amount, kinds.NewPath("status").Child("allocatable").Child(string(name))))
	}
}

func checkDeclaredFeatures(f *kinds.Faults, features []string, at *kinds.Path) {
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
			f.Duplicate(kinds.NewPath("status").Child("addresses").Index(i), address)
		}
		seen[address] = true
	}
	if len(old.Spec.PodCIDRs) > 0 && !kinds.Same(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		f.Forbidden(kinds.NewPath("spec").Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid")
	}
	provider := kinds.NewPath("spec").Child("providerID")
	switch was, now := old.Spec.ProviderID, n.Spec.ProviderID; {
	case was == "" || was == now:
	case now == "":
		f.Invalid(provider, nil, "field cannot be cleared once set")
	default:
		f.Invalid(provider, nil, "field cannot be modified once set")
	}
	checkNodeConfig(&f, n)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		f.Forbidden(kinds.NewPath("spec").Child("externalID"), "may not be updated")
	}
	return f.List()
}
