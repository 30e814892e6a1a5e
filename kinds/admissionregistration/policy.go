package admissionregistration

import (
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// ValidatingAdmissionPolicy is the kind of rules, as expressions, that objects
// must keep.
func ValidatingAdmissionPolicy(compiler Compiler) *kinds.Kind {
	type policy = admissionv1.ValidatingAdmissionPolicy
	return &kinds.Kind{
		GVK:        admissionv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicy"),
		Resource:   "validatingadmissionpolicies",
		Singular:   "validatingadmissionpolicy",
		Categories: categories(),
		Storage:    "validatingadmissionpolicies",
		New:        func() kinds.Object { return &policy{} },
		NewList:    func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			AnyFinalizer:              true,
			Generation:                true,
			ForbidUnconditionalUpdate: true,
			Default: kinds.Each(func(p *policy) {
				unless(&p.Spec.FailurePolicy, admissionv1.Fail)
				defaultMatch(p.Spec.MatchConstraints)
			}),
			PrepareCreate: kinds.Each(func(p *policy) {
				p.Status = admissionv1.ValidatingAdmissionPolicyStatus{}
				kinds.FirstGeneration(p)
			}),
			PrepareUpdate: kinds.Pair(func(p, old *policy) {
				p.Status = old.Status
				kinds.NextGeneration(p, old, !kinds.Same(p.Spec, old.Spec))
			}),
			Validate: kinds.Check(func(p *policy) field.ErrorList { return validatePolicy(compiler, p, nil) }),
			ValidateUpdate: kinds.CheckUpdate(func(p, old *policy) field.ErrorList {
				return validatePolicy(compiler, p, old)
			}),
			Warnings: kinds.Warn(func(p, old *policy) []string { return warnReserved(p, old == nil) }),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(validatingAdmissionPolicyTexts(), "Name", "Validations|integer", "ParamKind", "Age"),
			Row: kinds.Row(func(p *policy, now time.Time) []any {
				return []any{p.Name, int64(len(p.Spec.Validations)), paramKindCell(p.Spec.ParamKind), kinds.Created(p, now)}
			}),
		},
		Subresources: []kinds.Subresource{kinds.StatusOnly(func(next, body *policy) { next.Status = body.Status },
			func(p, _ *policy) field.ErrorList { return validatePolicyStatus(&p.Status) })},
	}
}

// ValidatingAdmissionPolicyBinding is the kind that puts a validating policy to
// work.
func ValidatingAdmissionPolicyBinding() *kinds.Kind {
	type binding = admissionv1.ValidatingAdmissionPolicyBinding
	return &kinds.Kind{
		GVK:        admissionv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicyBinding"),
		Resource:   "validatingadmissionpolicybindings",
		Singular:   "validatingadmissionpolicybinding",
		Categories: categories(),
		Storage:    "validatingadmissionpolicybindings",
		New:        func() kinds.Object { return &binding{} },
		NewList:    func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			AnyFinalizer:              true,
			Generation:                true,
			ForbidUnconditionalUpdate: true,
			Default:                   kinds.Each(func(b *binding) { defaultMatch(b.Spec.MatchResources) }),
			PrepareCreate:             kinds.FirstGeneration,
			PrepareUpdate: kinds.Pair(func(b, old *binding) {
				kinds.NextGeneration(b, old, !kinds.Same(b.Spec, old.Spec))
			}),
			Validate: kinds.Check(func(b *binding) field.ErrorList { return bindingRules(b, nil).Behind(validateBinding(b, true)) }),
			ValidateUpdate: kinds.CheckUpdate(func(b, old *binding) field.ErrorList {
				return bindingRules(b, old).Behind(validateBinding(b, false))
			}),
			Warnings: kinds.Warn(func(b, old *binding) []string { return warnReserved(b, old == nil) }),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(validatingAdmissionPolicyBindingTexts(), "Name", "PolicyName", "ParamRef", "Age"),
			Row: kinds.Row(func(b *binding, now time.Time) []any {
				return []any{b.Name, b.Spec.PolicyName, paramRefCell(b.Spec.ParamRef), kinds.Created(b, now)}
			}),
		},
	}
}

// MutatingAdmissionPolicy is the kind of changes, as expressions, that objects
// get on their way in.
func MutatingAdmissionPolicy(compiler Compiler) *kinds.Kind {
	type policy = admissionv1.MutatingAdmissionPolicy
	return &kinds.Kind{
		GVK:        admissionv1.SchemeGroupVersion.WithKind("MutatingAdmissionPolicy"),
		Resource:   "mutatingadmissionpolicies",
		Singular:   "mutatingadmissionpolicy",
		Categories: categories(),
		Storage:    "mutatingadmissionpolicies",
		New:        func() kinds.Object { return &policy{} },
		NewList:    func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			AnyFinalizer:              true,
			Generation:                true,
			ForbidUnconditionalUpdate: true,
			Default: kinds.Each(func(p *policy) {
				unless(&p.Spec.FailurePolicy, admissionv1.Fail)
				defaultMatch(p.Spec.MatchConstraints)
			}),
			PrepareCreate: kinds.FirstGeneration,
			PrepareUpdate: kinds.Pair(func(p, old *policy) {
				kinds.NextGeneration(p, old, !kinds.Same(p.Spec, old.Spec))
			}),
			Validate: kinds.Check(func(p *policy) field.ErrorList { return validateMutating(compiler, p, nil) }),
			ValidateUpdate: kinds.CheckUpdate(func(p, old *policy) field.ErrorList {
				return validateMutating(compiler, p, old)
			}),
			Warnings: kinds.Warn(func(p, old *policy) []string { return warnReserved(p, old == nil) }),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(mutatingAdmissionPolicyTexts(), "Name", "Mutations|integer", "ParamKind", "Age"),
			Row: kinds.Row(func(p *policy, now time.Time) []any {
				return []any{p.Name, int64(len(p.Spec.Mutations)), paramKindCell(p.Spec.ParamKind), kinds.Created(p, now)}
			}),
		},
	}
}

// MutatingAdmissionPolicyBinding is the kind that puts a mutating policy to work.
func MutatingAdmissionPolicyBinding() *kinds.Kind {
	type binding = admissionv1.MutatingAdmissionPolicyBinding
	return &kinds.Kind{
		GVK:        admissionv1.SchemeGroupVersion.WithKind("MutatingAdmissionPolicyBinding"),
		Resource:   "mutatingadmissionpolicybindings",
		Singular:   "mutatingadmissionpolicybinding",
		Categories: categories(),
		Storage:    "mutatingadmissionpolicybindings",
		New:        func() kinds.Object { return &binding{} },
		NewList:    func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyBindingList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			AnyFinalizer:              true,
			Generation:                true,
			ForbidUnconditionalUpdate: true,
			Default:                   kinds.Each(func(b *binding) { defaultMatch(b.Spec.MatchResources) }),
			PrepareCreate:             kinds.FirstGeneration,
			PrepareUpdate: kinds.Pair(func(b, old *binding) {
				kinds.NextGeneration(b, old, !kinds.Same(b.Spec, old.Spec))
			}),
			Validate:       kinds.Check(func(b *binding) field.ErrorList { return validateMutatingBinding(b, true) }),
			ValidateUpdate: kinds.CheckUpdate(func(b, _ *binding) field.ErrorList { return validateMutatingBinding(b, false) }),
			Warnings:       kinds.Warn(func(b, old *binding) []string { return warnReserved(b, old == nil) }),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(mutatingAdmissionPolicyBindingTexts(), "Name", "PolicyName", "ParamRef", "Age"),
			Row: kinds.Row(func(b *binding, now time.Time) []any {
				return []any{b.Name, b.Spec.PolicyName, paramRefCell(b.Spec.ParamRef), kinds.Created(b, now)}
			}),
		},
	}
}

func defaultMatch(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	unless(&m.MatchPolicy, admissionv1.Equivalent)
	unless(&m.NamespaceSelector, metav1.LabelSelector{})
	unless(&m.ObjectSelector, metav1.LabelSelector{})
	for _, rules := range [][]admissionv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			unless(&rules[i].Scope, admissionv1.AllScopes)
		}
	}
}

func paramKindCell(k *admissionv1.ParamKind) string {
	if k == nil {
		return kinds.Unset
	}
	return k.APIVersion + "/" + k.Kind
}

func paramRefCell(r *admissionv1.ParamRef) string {
	switch {
	case r == nil:
		return kinds.Unset
	case r.Name != "" && r.Namespace != "":
		return r.Namespace + "/" + r.Name
	case r.Name != "":
		return "*/" + r.Name
	case r.Selector != nil:
		return r.Selector.String()
	}
	return kinds.Unset
}
