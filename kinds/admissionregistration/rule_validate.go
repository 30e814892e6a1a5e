package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sampan-dev/sampan/kinds"
)

const wildcard = "*"

// validateRule checks which requests a webhook or policy wants to see.
func validateRule(f *kinds.Faults, r *admissionv1.RuleWithOperations, at *kinds.Path) {
	ops := at.Child("operations")
	if len(r.Operations) == 0 {
		f.Required(ops, "")
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionv1.OperationAll) {
		f.Invalid(ops, r.Operations, "if '*' is present, must not specify other operations")
	}
	for i, op := range r.Operations {
		kinds.OneOf(f, ops.Index(i), op, admissionv1.OperationAll, admissionv1.Create, admissionv1.Update,
			admissionv1.Delete, admissionv1.Connect)
	}
	validateList(f, r.APIGroups, "API groups", at.Child("apiGroups"))
	validateList(f, r.APIVersions, "API versions", at.Child("apiVersions"))
	for i, version := range r.APIVersions {
		f.NonEmpty(at.Child("apiVersions").Index(i), version)
	}
	validateResources(f, r.Resources, at.Child("resources"))
	if r.Scope != nil {
		kinds.OneOf(f, at.Child("scope"), *r.Scope, admissionv1.ClusterScope, admissionv1.NamespacedScope, admissionv1.AllScopes)
	}
}

func validateList(f *kinds.Faults, list []string, of string, at *kinds.Path) {
	if len(list) == 0 {
		f.Required(at, "")
	}
	if len(list) > 1 && slices.Contains(list, wildcard) {
		f.Invalid(at, list, "if '*' is present, must not specify other "+of)
	}
}

// validateResources refuses entries that others already cover.
func validateResources(f *kinds.Faults, resources []string, at *kinds.Path) {
	if len(resources) == 0 {
		f.Required(at, "")
	}
	allOf, everywhere := map[string]bool{}, map[string]bool{} // "x/*", "*/x"
	plain := false
	for i, entry := range resources {
		if !f.NonEmpty(at.Index(i), entry) {
			continue
		}
		res, sub, ok := strings.Cut(entry, "/")
		if !ok {
			plain = entry != wildcard
			continue
		}
		if allOf[res] {
			f.Invalid(at.Index(i), entry, fmt.Sprintf("if '%s/*' is present, must not specify %s", res, entry))
		}
		if everywhere[sub] {
			f.Invalid(at.Index(i), entry, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, entry))
		}
		if sub == wildcard {
			allOf[res] = true
		}
		if res == wildcard {
			everywhere[sub] = true
		}
	}
	if len(resources) > 1 && slices.Contains(resources, "*/*") {
		f.Invalid(at, resources, "if '*/*' is present, must not specify other resources")
	}
	if plain && slices.Contains(resources, wildcard) {
		f.Invalid(at, resources, "if '*' is present, must not specify other resources without subresources")
	}
}

func validateFailurePolicy(f *kinds.Faults, p admissionv1.FailurePolicyType, at *kinds.Path) {
	kinds.OneOf(f, at, p, admissionv1.Fail, admissionv1.Ignore)
}

func validateMatchPolicy(f *kinds.Faults, p admissionv1.MatchPolicyType, at *kinds.Path) {
	kinds.OneOf(f, at, p, admissionv1.Exact, admissionv1.Equivalent)
}
