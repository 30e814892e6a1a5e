package policy

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

const anything = "*"

// mayRead refuses a policy or binding whose writer may not read its params: a
// policy's messages could tell what they say.
func (p *Policies) mayRead(ctx context.Context, a *resource.Attributes) error {
	if a.Target.Resource.Group != admissionregistrationv1.GroupName || a.Target.Subresource != "" || a.User.In(identity.Masters) {
		return nil
	}
	switch obj := a.Object.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		old, _ := a.Old.(*admissionregistrationv1.ValidatingAdmissionPolicy)
		if old != nil && kinds.Same(old.Spec.ParamKind, obj.Spec.ParamKind) {
			return nil
		}
		return refuse(a, "paramKind", p.mayReadKind(ctx, a.User, obj.Spec.ParamKind))
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		old, _ := a.Old.(*admissionregistrationv1.MutatingAdmissionPolicy)
		if old != nil && kinds.Same(old.Spec.ParamKind, obj.Spec.ParamKind) {
			return nil
		}
		return refuse(a, "paramKind", p.mayReadKind(ctx, a.User, obj.Spec.ParamKind))
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		old, _ := a.Old.(*admissionregistrationv1.ValidatingAdmissionPolicyBinding)
		if old != nil && kinds.Same(old.Spec.ParamRef, obj.Spec.ParamRef) && old.Spec.PolicyName == obj.Spec.PolicyName {
			return nil
		}
		return refuse(a, "paramRef", p.mayReadParams(ctx, a.User, "validatingadmissionpolicies", obj.Spec.PolicyName, obj.Spec.ParamRef))
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		old, _ := a.Old.(*admissionregistrationv1.MutatingAdmissionPolicyBinding)
		if old != nil && kinds.Same(old.Spec.ParamRef, obj.Spec.ParamRef) && old.Spec.PolicyName == obj.Spec.PolicyName {
			return nil
		}
		return refuse(a, "paramRef", p.mayReadParams(ctx, a.User, "mutatingadmissionpolicies", obj.Spec.PolicyName, obj.Spec.ParamRef))
	}
	return nil
}

func refuse(a *resource.Attributes, at string, err error) error {
	if err == nil {
		return nil
	}
	return apierrors.NewInvalid(a.GVK.GroupKind(), a.Target.Name, field.ErrorList{field.Forbidden(field.NewPath("spec", at), err.Error())})
}

func (p *Policies) mayReadKind(ctx context.Context, who identity.Identity, k *admissionregistrationv1.ParamKind) error {
	if k == nil {
		return nil
	}
	q, _, _ := p.question(k)
	q.User, q.Verb, q.Name, q.Namespace = who, "get", anything, anything
	if allowed, _ := p.cfg.Authz.Authorize(ctx, q); allowed {
		return nil
	}
	return fmt.Errorf(`user %v must have "get" permission on all objects of the referenced paramKind (kind=%s, apiVersion=%s)`, &who, k.Kind, k.APIVersion)
}

// question asks about a kind of params: about everything, as far as it is not known
// what the kind's resource is.
func (p *Policies) question(k *admissionregistrationv1.ParamKind) (q authz.Attributes, parsed, resolved bool) {
	q = authz.Attributes{Group: anything, Version: anything, Resource: anything}
	gv, err := schema.ParseGroupVersion(k.APIVersion)
	if err != nil {
		return q, false, false
	}
	q.Group, q.Version = gv.Group, gv.Version
	kind, ok := p.cfg.Table.KindOf(gv.WithKind(k.Kind))
	if ok {
		q.Resource = kind.Resource
	}
	return q, true, ok
}

func (p *Policies) mayReadParams(ctx context.Context, who identity.Identity, resource, policy string, ref *admissionregistrationv1.ParamRef) error {
	if ref == nil {
		return nil
	}
	q, parsed, resolved := authz.Attributes{Group: anything, Version: anything, Resource: anything}, true, true
	kind, err := p.kindIn(ctx, resource, policy)
	if kind != nil {
		q, parsed, resolved = p.question(kind)
	}
	q.User, q.Verb, q.Name, q.Namespace = who, "get", ref.Name, ref.Namespace
	if ref.Name == "" {
		q.Verb = "list"
	}
	if allowed, _ := p.cfg.Authz.Authorize(ctx, q); allowed {
		return nil
	}
	const rest = `to determine minimum required permissions and user %v does not have "%v" permission for all groups, versions and resources`
	switch {
	case err != nil:
		return fmt.Errorf("unable to get policy %s "+rest, policy, &who, q.Verb)
	case !parsed:
		return fmt.Errorf("unable to parse paramKind %v "+rest, kind, &who, q.Verb)
	case !resolved:
		return fmt.Errorf("unable to resolve paramKind %v "+rest, kind, &who, q.Verb)
	}
	return fmt.Errorf(`user %v does not have "%v" permission on the object referenced by paramRef`, &who, q.Verb)
}

// kindIn is the kind of params of a stored policy; nil when it has none.
func (p *Policies) kindIn(ctx context.Context, resource, policy string) (*admissionregistrationv1.ParamKind, error) {
	obj, err := p.cfg.Objects.Get(ctx, target.Of(admissionregistrationv1.SchemeGroupVersion.WithResource(resource), "").Object(policy), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	switch found := obj.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		return found.Spec.ParamKind, nil
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		return found.Spec.ParamKind, nil
	}
	return nil, fmt.Errorf("policy %q is a %T", policy, obj)
}
