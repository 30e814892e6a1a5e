// Package admissionregistration says what the kinds of the
// admissionregistration.k8s.io group are: webhook configurations, admission
// policies and their bindings.
//
// Expressions are only text here. What compiles them is heavy, and belongs to
// the API server, which hands it in with Compile.
package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// reservedSuffix ends the names of configurations that come from files.
const reservedSuffix = ".static.k8s.io"

// Kinds lists the group's kinds, with validation that does not look into
// expressions.
func Kinds() []*kinds.Kind { return rows(nil) }

// Compile makes the group's rows in table look into expressions, too: new ones
// must compile, in upstream's words. It changes the rows.
func Compile(table []*kinds.Kind, compiler Compiler) {
	for _, full := range rows(compiler) {
		for _, row := range table {
			if row.GVK == full.GVK {
				row.Strategy = full.Strategy
			}
		}
	}
}

func rows(compiler Compiler) []*kinds.Kind {
	return []*kinds.Kind{
		ValidatingWebhookConfiguration(compiler),
		MutatingWebhookConfiguration(compiler),
		ValidatingAdmissionPolicy(compiler),
		ValidatingAdmissionPolicyBinding(),
		MutatingAdmissionPolicy(compiler),
		MutatingAdmissionPolicyBinding(),
	}
}

// categories are what kubectl also finds the kinds by.
func categories() []string { return []string{"api-extensions"} }

// Excluded are the resources that neither webhooks nor policies ever see: to
// refuse one could lock everybody out of the cluster.
func Excluded() []schema.GroupResource {
	return []schema.GroupResource{
		{Group: "authentication.k8s.io", Resource: "selfsubjectreviews"},
		{Group: "authentication.k8s.io", Resource: "tokenreviews"},
		{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"},
		{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
	}
}

const reservedText = "names ending with %q are reserved for static manifest-based configurations and cannot be managed via the API"

// checkReserved refuses new objects with a reserved name.
func checkReserved(f *kinds.Faults, obj metav1.Object) {
	if strings.HasSuffix(obj.GetName(), reservedSuffix) {
		f.Invalid(kinds.NewPath("metadata").Child("name"), obj.GetName(), fmt.Sprintf(reservedText, reservedSuffix))
	}
}

// warnReserved warns of old objects with a reserved name.
func warnReserved(obj metav1.Object, isNew bool) []string {
	if isNew || !strings.HasSuffix(obj.GetName(), reservedSuffix) {
		return nil
	}
	return []string{"metadata.name: " + fmt.Sprintf(reservedText, reservedSuffix)}
}

// warnExcluded warns of rules that name resources which no webhook ever sees.
func warnExcluded(at *kinds.Path, rules []admissionv1.RuleWithOperations) (texts []string) {
	for i, rule := range rules {
		if slices.Contains(rule.APIGroups, "*") || slices.Contains(rule.Resources, "*") {
			continue
		}
		seen := map[schema.GroupResource]bool{}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				gr := schema.GroupResource{Group: group, Resource: resource}
				if seen[gr] || !slices.Contains(Excluded(), gr) {
					continue
				}
				seen[gr] = true
				texts = append(texts, fmt.Sprintf("%s: %s is excluded from admission webhooks; this rule will have no effect", at.Index(i), gr))
			}
		}
	}
	return texts
}
