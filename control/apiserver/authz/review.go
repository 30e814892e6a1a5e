package authz

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/internal/identity"
)

// Review answers the four kinds of question that authorization.k8s.io knows, by
// returning a copy of the question with its status filled. namespace is that of
// the request's path, for the local review.
func (a *Authorizer) Review(ctx context.Context, caller identity.Identity, namespace string, question runtime.Object) (runtime.Object, error) {
	switch q := question.(type) {
	case *authorizationv1.SubjectAccessReview:
		return a.subjectReview(ctx, q.DeepCopy())
	case *authorizationv1.LocalSubjectAccessReview:
		return a.localReview(ctx, q.DeepCopy(), namespace)
	case *authorizationv1.SelfSubjectAccessReview:
		return a.selfReview(ctx, caller, q.DeepCopy())
	case *authorizationv1.SelfSubjectRulesReview:
		return a.rulesReview(caller, q.DeepCopy())
	}
	return nil, apierrors.NewBadRequest(fmt.Sprintf("not an access review: %T", question))
}

func (a *Authorizer) subjectReview(ctx context.Context, r *authorizationv1.SubjectAccessReview) (runtime.Object, error) {
	errs := wrongSubject(r.Spec)
	if len(errs) > 0 {
		return nil, invalid(errs)
	}
	r.Status = a.answer(ctx, r.Spec)
	return r, nil
}

func (a *Authorizer) localReview(ctx context.Context, r *authorizationv1.LocalSubjectAccessReview, namespace string) (runtime.Object, error) {
	errs := wrongSubject(r.Spec)
	attrs := r.Spec.ResourceAttributes
	if r.Spec.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec.nonResourceAttributes"), r.Spec.NonResourceAttributes, "disallowed on this kind of request"))
	}
	if attrs != nil && attrs.Namespace != namespace {
		errs = append(errs, field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), attrs.Namespace, "must match metadata.namespace"))
	}
	if len(errs) > 0 {
		return nil, invalid(errs)
	}
	r.Status = a.answer(ctx, r.Spec)
	return r, nil
}

func (a *Authorizer) selfReview(ctx context.Context, caller identity.Identity, r *authorizationv1.SelfSubjectAccessReview) (runtime.Object, error) {
	errs := wrongQuestion(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	if len(errs) > 0 {
		return nil, invalid(errs)
	}
	r.Status = status(a.Decide(ctx, question(caller, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)))
	r.Status.EvaluationError = unread(r.Spec.ResourceAttributes)
	return r, nil
}

func (a *Authorizer) answer(ctx context.Context, spec authorizationv1.SubjectAccessReviewSpec) authorizationv1.SubjectAccessReviewStatus {
	who := identity.Identity{Name: spec.User, UID: spec.UID, Groups: spec.Groups, Extra: map[string][]string{}}
	for k, v := range spec.Extra {
		who.Extra[k] = v
	}
	s := status(a.Decide(ctx, question(who, spec.ResourceAttributes, spec.NonResourceAttributes)))
	s.EvaluationError = unread(spec.ResourceAttributes)
	return s
}

func status(d Decision, reason string) authorizationv1.SubjectAccessReviewStatus {
	return authorizationv1.SubjectAccessReviewStatus{Allowed: d == Allow, Denied: d == Deny, Reason: reason}
}

// unread says which selectors of a question played no part in its answer. Without them
// the question is a broader one.
func unread(r *authorizationv1.ResourceAttributes) string {
	if r == nil {
		return ""
	}
	var parts []string
	tell := func(what, raw string, parse func(string) error, wrong, all int) {
		switch {
		case wrong > 0 && wrong < all:
			parts = append(parts, "spec.resourceAttributes."+what+" partially ignored due to parse error")
		case wrong > 0, all == 0 && raw != "" && parse(raw) != nil:
			parts = append(parts, "spec.resourceAttributes."+what+" ignored due to parse error")
		}
	}
	if s := r.FieldSelector; s != nil {
		wrong := 0
		for _, q := range s.Requirements {
			if len(q.Values) != 1 || q.Operator != metav1.FieldSelectorOpIn && q.Operator != metav1.FieldSelectorOpNotIn {
				wrong++
			}
		}
		parse := func(raw string) error { _, err := fields.ParseSelector(raw); return err }
		tell("fieldSelector", s.RawSelector, parse, wrong, len(s.Requirements))
	}
	if s := r.LabelSelector; s != nil {
		wrong := 0
		for _, q := range s.Requirements {
			if _, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{q}}); err != nil {
				wrong++
			}
		}
		parse := func(raw string) error { _, err := labels.ParseToRequirements(raw); return err }
		tell("labelSelector", s.RawSelector, parse, wrong, len(s.Requirements))
	}
	return strings.Join(parts, "; ")
}

// question turns what a review asks into what the Authorizer decides.
func question(who identity.Identity, r *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) Attributes {
	if path != nil {
		return Attributes{User: who, Verb: path.Verb, Path: path.Path}
	}
	field, label := selectors(r)
	return Attributes{User: who, Verb: r.Verb, Group: r.Group, Version: r.Version, Resource: r.Resource,
		Subresource: r.Subresource, Namespace: r.Namespace, Name: r.Name, FieldSelector: field, LabelSelector: label}
}

func wrongSubject(spec authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := wrongQuestion(spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec.user"), spec.User, "at least one of user or group must be specified"))
	}
	return errs
}

func wrongQuestion(r *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) field.ErrorList {
	if r != nil && path != nil {
		return field.ErrorList{field.Invalid(field.NewPath("spec.nonResourceAttributes"), path, "cannot be specified in combination with resourceAttributes")}
	}
	if r == nil && path == nil {
		return field.ErrorList{field.Invalid(field.NewPath("spec.resourceAttributes"), nil, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	return nil
}

func invalid(errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName}, "", errs) // which upstream gives no kind
}

// rulesReview lists what the caller may do in a namespace. It is for showing:
// what a node may do by its pods is not in it, which Incomplete says.
func (a *Authorizer) rulesReview(caller identity.Identity, r *authorizationv1.SelfSubjectRulesReview) (runtime.Object, error) {
	if r.Spec.Namespace == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	rules, unresolved := a.rulesFor(caller, r.Spec.Namespace)
	r.Status = authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{},
	}
	if _, node := caller.Node(); node {
		r.Status.Incomplete = true
		r.Status.EvaluationError = "node authorizer does not support user rule resolution"
	}
	for _, source := range *a.order.Load() {
		switch source := source.Source.(type) {
		case *webhook:
			r.Status.Incomplete = true
			r.Status.EvaluationError = "webhook authorizer does not support user rule resolution"
		case constant:
			if source.decision == Allow {
				rules = append(rules, fullAuthority()...)
			}
		}
	}
	if unresolved != nil {
		r.Status.Incomplete = true
		r.Status.EvaluationError = unresolved.Error()
	}
	for _, rule := range rules {
		r.Status.ResourceRules, r.Status.NonResourceRules = show(r.Status.ResourceRules, r.Status.NonResourceRules, rule)
	}
	return &authorizationv1.SelfSubjectRulesReview{Status: r.Status}, nil // the question is not repeated
}

func show(res []authorizationv1.ResourceRule, urls []authorizationv1.NonResourceRule, r rbacv1.PolicyRule) ([]authorizationv1.ResourceRule, []authorizationv1.NonResourceRule) {
	if len(r.Resources) > 0 {
		res = append(res, authorizationv1.ResourceRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
	}
	if len(r.NonResourceURLs) > 0 {
		urls = append(urls, authorizationv1.NonResourceRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
	}
	return res, urls
}
