package admissionregistration

import (
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/jsonpath"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// The bounds of a policy's audit annotations; the expression's is in bytes.
const (
	maxAnnotations          = 20
	maxAnnotationExpression = 5 << 10
)

// validatePolicy reports everything wrong with a validating policy; old is nil
// for a new one.
func validatePolicy(compiler Compiler, p, old *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
	var f kinds.Faults
	s, at := &p.Spec, kinds.NewPath("spec")
	validatePolicyHead(&f, s.FailurePolicy, s.ParamKind, at)
	validateConstraints(&f, s.MatchConstraints, at.Child("matchConstraints"))
	conditions, checks, messages, values := policyTexts(old)
	e := newExpressions(&f, compiler, s.ParamKind != nil, len(s.Variables) > 0)
	if old == nil || !kinds.Same(s.ParamKind, old.Spec.ParamKind) || !kinds.Same(s.MatchConditions, old.Spec.MatchConditions) {
		e.conditions(at.Child("matchConditions"), s.MatchConditions, conditions)
	}
	e.variables(at.Child("variables"), s.Variables, checks)
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		const text = "validations or auditAnnotations must contain at least one item"
		f.Required(at.Child("validations"), text)
		f.Required(at.Child("auditAnnotations"), text)
	}
	for i := range s.Validations {
		e.validation(&s.Validations[i], checks, messages, at.Child("validations").Index(i))
	}
	e.annotations(p.Name, s.AuditAnnotations, values, at.Child("auditAnnotations"))
	if old == nil {
		checkReserved(&f, p)
	}
	return f.List()
}

// policyTexts are the expressions that a policy had.
func policyTexts(old *admissionv1.ValidatingAdmissionPolicy) (conditions, checks, messages, values texts) {
	conditions, checks, messages, values = texts{}, texts{}, texts{}, texts{}
	if old == nil {
		return conditions, checks, messages, values
	}
	conditionTexts(conditions, old.Spec.MatchConditions)
	for _, v := range old.Spec.Validations {
		checks[v.Expression], messages[v.MessageExpression] = true, true
	}
	for _, a := range old.Spec.AuditAnnotations {
		values[a.ValueExpression] = true
	}
	return conditions, checks, messages, values
}

// validatePolicyHead checks what both sorts of policies begin with.
func validatePolicyHead(f *kinds.Faults, failure *admissionv1.FailurePolicyType, params *admissionv1.ParamKind, at *kinds.Path) {
	if failure == nil {
		f.Required(at.Child("failurePolicy"), "")
	} else {
		validateFailurePolicy(f, *failure, at.Child("failurePolicy"))
	}
	if params != nil {
		validateParamKind(f, params, at.Child("paramKind"))
	}
}

// validateConstraints checks what a policy is about: it must name resources.
func validateConstraints(f *kinds.Faults, m *admissionv1.MatchResources, at *kinds.Path) {
	if m == nil {
		f.Required(at, "")
		return
	}
	validateMatch(f, m, at)
	if len(m.ResourceRules) == 0 {
		f.Required(at.Child("resourceRules"), "")
	}
}

func validateParamKind(f *kinds.Faults, k *admissionv1.ParamKind, at *kinds.Path) {
	if f.NonEmpty(at.Child("apiVersion"), k.APIVersion) {
		validateParamVersion(f, k.APIVersion, at.Child("apiVersion"))
	}
	if !f.NonEmpty(at.Child("kind"), k.Kind) {
		return
	}
	if bad := validation.IsDNS1035Label(strings.ToLower(k.Kind)); len(bad) > 0 {
		f.Invalid(at.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: "+strings.Join(bad, ","))
	}
}

func validateParamVersion(f *kinds.Faults, text string, at *kinds.Path) {
	group, version := "", text
	switch strings.Count(text, "/") {
	case 0:
	case 1:
		group, version, _ = strings.Cut(text, "/")
	default:
		f.Invalid(at, text, "unexpected GroupVersion string: "+text)
		return
	}
	if group != "" {
		if bad := validation.IsDNS1123Subdomain(group); len(bad) > 0 {
			f.Invalid(at, group, strings.Join(bad, ","))
		}
	}
	if version == "" {
		f.Invalid(at, text, "version must be specified")
		return
	}
	if bad := validation.IsDNS1035Label(version); len(bad) > 0 {
		f.Invalid(at, version, strings.Join(bad, ","))
	}
}

// validateMatch checks a selection of requests; nil selects all.
func validateMatch(f *kinds.Faults, m *admissionv1.MatchResources, at *kinds.Path) {
	if m == nil {
		return
	}
	if m.MatchPolicy == nil {
		f.Required(at.Child("matchPolicy"), "")
	} else {
		validateMatchPolicy(f, *m.MatchPolicy, at.Child("matchPolicy"))
	}
	requireSelector(f, m.NamespaceSelector, at.Child("namespaceSelector"))
	requireSelector(f, m.ObjectSelector, at.Child("objectSelector"))
	for i := range m.ResourceRules {
		validateNamedRule(f, &m.ResourceRules[i], at.Child("resourceRules").Index(i))
	}
	for i := range m.ExcludeResourceRules {
		validateNamedRule(f, &m.ExcludeResourceRules[i], at.Child("excludeResourceRules").Index(i))
	}
}

func requireSelector(f *kinds.Faults, s *metav1.LabelSelector, at *kinds.Path) {
	if s == nil {
		f.Required(at, "")
		return
	}
	f.JoinAt(at, metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, kinds.Here))
}

func validateNamedRule(f *kinds.Faults, r *admissionv1.NamedRuleWithOperations, at *kinds.Path) {
	seen := map[string]bool{}
	for i, name := range r.ResourceNames {
		here := at.Child("resourceNames").Index(i)
		f.Each(here, name, kinds.PathName(name, false))
		if seen[name] {
			f.Duplicate(here, name)
		}
		seen[name] = true
	}
	validateRule(f, &r.RuleWithOperations, at)
}

// validation checks one rule of a validating policy.
func (e *expressions) validation(v *admissionv1.Validation, checks, messages texts, at *kinds.Path) {
	if strings.TrimSpace(v.Expression) == "" {
		e.Required(at.Child("expression"), "expression is not specified")
	} else {
		e.check(at.Child("expression"), UseValidation, v.Expression, checks[v.Expression])
	}
	const blank = "must be non-empty if specified"
	switch {
	case v.MessageExpression == "":
	case strings.TrimSpace(v.MessageExpression) == "":
		e.Invalid(at.Child("messageExpression"), v.MessageExpression, blank)
	default:
		e.check(at.Child("messageExpression"), UseMessage, v.MessageExpression, messages[v.MessageExpression])
	}
	message := strings.TrimSpace(v.Message)
	switch {
	case v.Message != "" && message == "":
		e.Invalid(at.Child("message"), v.Message, blank)
	case strings.ContainsAny(message, "\n\r"):
		e.Invalid(at.Child("message"), v.Message, "must not contain line breaks")
	}
	if v.Reason != nil {
		kinds.OneOf(e.Faults, at.Child("reason"), *v.Reason, metav1.StatusReasonForbidden, metav1.StatusReasonInvalid,
			metav1.StatusReasonRequestEntityTooLarge)
	}
}

// annotations checks what a policy adds to the audit log.
func (e *expressions) annotations(policy string, all []admissionv1.AuditAnnotation, had texts, at *kinds.Path) {
	if len(all) > maxAnnotations {
		e.Invalid(at, all, fmt.Sprintf("must not have more than %d auditAnnotations", maxAnnotations))
	}
	keys := map[string]bool{}
	for i, a := range all {
		key, value := at.Index(i).Child("key"), at.Index(i).Child("valueExpression")
		if policy == "" {
			e.Invalid(key, a.Key, "requires metadata.name be non-empty")
		} else {
			whole := policy + "/" + a.Key
			e.Each(key, whole, validation.IsQualifiedName(whole))
		}
		text := strings.TrimSpace(a.ValueExpression)
		switch {
		case text == "":
			e.Required(value, "valueExpression is not specified")
		case len(text) > maxAnnotationExpression:
			e.Required(value, fmt.Sprintf("must not exceed %d bytes in length", maxAnnotationExpression))
		default:
			e.check(value, UseAnnotation, text, had[a.ValueExpression])
		}
		if keys[a.Key] {
			e.Duplicate(key, a.Key)
		}
		keys[a.Key] = true
	}
}

// validateBinding reports everything wrong with a validating policy's binding.
func validateBinding(b *admissionv1.ValidatingAdmissionPolicyBinding, isNew bool) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("spec")
	validateBindingHead(&f, b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, at)
	validateActions(&f, b.Spec.ValidationActions, at.Child("validationActions"))
	if isNew {
		checkReserved(&f, b)
	}
	return f.List()
}

// bindingRules are upstream's declared rules about bindings of validating policies.
func bindingRules(b, old *admissionv1.ValidatingAdmissionPolicyBinding) *declared.Rules {
	r, at := declared.For(old), kinds.NewPath("spec")
	type binding = admissionv1.ValidatingAdmissionPolicyBinding
	declared.Required(r, b, old, at.Child("policyName"), func(b *binding) string { return b.Spec.PolicyName })
	declared.Field(r, b, old, at.Child("validationActions"), func(b *binding) []admissionv1.ValidationAction { return b.Spec.ValidationActions },
		func(now, _ []admissionv1.ValidationAction, at *kinds.Path) {
			if len(now) == 0 {
				r.Faults.Required(at, "")
			}
		})
	return r
}

func validateBindingHead(f *kinds.Faults, policy string, params *admissionv1.ParamRef, match *admissionv1.MatchResources, at *kinds.Path) {
	if f.NonEmpty(at.Child("policyName"), policy) {
		f.Each(at.Child("policyName"), policy, validation.IsDNS1123Subdomain(policy))
	}
	if params != nil {
		validateParamRef(f, params, at.Child("paramRef"))
	}
	validateMatch(f, match, at.Child("matchResources"))
}

func validateActions(f *kinds.Faults, actions []admissionv1.ValidationAction, at *kinds.Path) {
	seen := map[admissionv1.ValidationAction]bool{}
	for i, a := range actions {
		kinds.OneOf(f, at.Index(i), a, admissionv1.Deny, admissionv1.Warn, admissionv1.Audit)
		if seen[a] {
			f.Duplicate(at.Index(i), a)
		}
		seen[a] = true
	}
	if seen[admissionv1.Deny] && seen[admissionv1.Warn] {
		f.Invalid(at, actions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)")
	}
	if len(actions) == 0 {
		f.Required(at, "at least one validation action is required")
	}
}

func validateParamRef(f *kinds.Faults, r *admissionv1.ParamRef, at *kinds.Path) {
	const both = "name and selector are mutually exclusive"
	if r.Name != "" {
		f.Each(at.Child("name"), r.Name, kinds.PathName(r.Name, false))
		if r.Selector != nil {
			f.Forbidden(at.Child("name"), both)
		}
	}
	if r.Selector != nil {
		f.JoinAt(at.Child("selector"), metavalidation.ValidateLabelSelector(r.Selector, metavalidation.LabelSelectorValidationOptions{}, kinds.Here))
		if r.Name != "" {
			f.Forbidden(at.Child("selector"), both)
		}
	}
	if r.Name == "" && r.Selector == nil {
		f.Required(at, "one of name or selector must be specified")
	}
	action := at.Child("parameterNotFoundAction")
	if a := kinds.Deref(r.ParameterNotFoundAction); f.NonEmpty(action, string(a)) && a != admissionv1.DenyAction && a != admissionv1.AllowAction {
		f.Join(field.ErrorList{field.NotSupported(action.Field(), a,
			[]admissionv1.ParameterNotFoundActionType{admissionv1.DenyAction, admissionv1.AllowAction})})
	}
}

// validatePolicyStatus checks what the type checker writes.
func validatePolicyStatus(s *admissionv1.ValidatingAdmissionPolicyStatus) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("status")
	if s.TypeChecking != nil {
		for i, w := range s.TypeChecking.ExpressionWarnings {
			here := at.Child("typeChecking").Child("expressionWarnings").Index(i)
			f.NonEmpty(here.Child("warning"), w.Warning)
			ref := strings.TrimSpace(w.FieldRef)
			if !f.NonEmpty(here.Child("fieldRef"), ref) {
				continue
			}
			if err := jsonpath.New("spec").Parse("{" + ref + "}"); err != nil {
				f.Invalid(here.Child("fieldRef"), ref, fmt.Sprintf("invalid JSONPath: %v", err))
			}
		}
	}
	f.JoinAt(at.Child("conditions"), metavalidation.ValidateConditions(s.Conditions, kinds.Here))
	return f.List()
}
