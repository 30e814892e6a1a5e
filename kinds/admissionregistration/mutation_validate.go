package admissionregistration

import (
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// validateMutating reports everything wrong with a mutating policy; old is nil
// for a new one.
func validateMutating(compiler Compiler, p, old *admissionv1.MutatingAdmissionPolicy) field.ErrorList {
	var f kinds.Faults
	s, at := &p.Spec, kinds.NewPath("spec")
	validatePolicyHead(&f, s.FailurePolicy, s.ParamKind, at)
	validateConstraints(&f, s.MatchConstraints, at.Child("matchConstraints"))
	validateChanges(&f, s.MatchConstraints, at.Child("matchConstraints"))
	conditions, patches := mutatingTexts(old)
	e := newExpressions(&f, compiler, s.ParamKind != nil, true)
	if old == nil || !kinds.Same(s.ParamKind, old.Spec.ParamKind) || !kinds.Same(s.MatchConditions, old.Spec.MatchConditions) {
		e.conditions(at.Child("matchConditions"), s.MatchConditions, conditions)
	}
	e.variables(at.Child("variables"), s.Variables, texts{})
	if len(s.Mutations) == 0 {
		f.Required(at.Child("mutations"), "mutations must contain at least one item")
	}
	for i := range s.Mutations {
		e.mutation(&s.Mutations[i], patches, at.Child("mutations").Index(i))
	}
	kinds.RequiredOneOf(&f, at.Child("reinvocationPolicy"), s.ReinvocationPolicy,
		admissionv1.NeverReinvocationPolicy, admissionv1.IfNeededReinvocationPolicy)
	if old == nil {
		checkReserved(&f, p)
	}
	return f.List()
}

func mutatingTexts(old *admissionv1.MutatingAdmissionPolicy) (conditions, patches texts) {
	conditions, patches = texts{}, texts{}
	if old == nil {
		return conditions, patches
	}
	conditionTexts(conditions, old.Spec.MatchConditions)
	for _, m := range old.Spec.Mutations {
		if m.ApplyConfiguration != nil {
			patches[m.ApplyConfiguration.Expression] = true
		}
		if m.JSONPatch != nil {
			patches[m.JSONPatch.Expression] = true
		}
	}
	return conditions, patches
}

// validateChanges refuses operations that leave nothing to change.
func validateChanges(f *kinds.Faults, m *admissionv1.MatchResources, at *kinds.Path) {
	if m == nil {
		return
	}
	for _, rule := range m.ResourceRules {
		for _, op := range rule.Operations {
			kinds.OneOf(f, at.Child("resourceRules").Child("operations"), op, admissionv1.OperationAll,
				admissionv1.Create, admissionv1.Update, admissionv1.Connect)
		}
	}
}

// mutation checks one change of a mutating policy.
func (e *expressions) mutation(m *admissionv1.Mutation, had texts, at *kinds.Path) {
	patch, apply := at.Child("jsonPatch"), at.Child("applyConfiguration")
	switch m.PatchType {
	case "":
		e.Required(at.Child("patchType"), "")
	case admissionv1.PatchTypeJSONPatch:
		if m.JSONPatch == nil {
			e.Required(patch, "must be specified when patchType is JSONPatch")
		} else {
			e.patch(m.JSONPatch.Expression, UseJSONPatch, had, patch.Child("expression"))
		}
		if m.ApplyConfiguration != nil {
			e.Invalid(apply, "{applyConfiguration}", "must not be specified when patchType is JSONPatch")
		}
	case admissionv1.PatchTypeApplyConfiguration:
		if m.ApplyConfiguration == nil {
			e.Required(apply, "must be specified when patchType is ApplyConfiguration")
		} else {
			e.patch(m.ApplyConfiguration.Expression, UseApplyConfiguration, had, apply.Child("expression"))
		}
		if m.JSONPatch != nil {
			e.Invalid(patch, "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration")
		}
	default:
		kinds.OneOf(e.Faults, at.Child("patchType"), m.PatchType, admissionv1.PatchTypeJSONPatch, admissionv1.PatchTypeApplyConfiguration)
	}
}

func (e *expressions) patch(expression string, use Use, had texts, at *kinds.Path) {
	text := strings.TrimSpace(expression)
	if text == "" {
		e.Required(at, "")
		return
	}
	e.check(at, use, text, had[expression])
}

// validateMutatingBinding reports everything wrong with a mutating policy's
// binding.
func validateMutatingBinding(b *admissionv1.MutatingAdmissionPolicyBinding, isNew bool) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("spec")
	validateBindingHead(&f, b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, at)
	validateChanges(&f, b.Spec.MatchResources, at.Child("matchResources"))
	if isNew {
		checkReserved(&f, b)
	}
	return f.List()
}
