package networking

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// maxController is the longest name of an ingress controller.
const maxController = 250

func validateIngressClass(c *networkingv1.IngressClass) field.ErrorList {
	return classRules(c, nil).Behind(ingressClass(c))
}

// classRules are upstream's declared rules.
func classRules(c, old *networkingv1.IngressClass) *declared.Rules {
	r := declared.For(old)
	type ref = networkingv1.IngressClassParametersReference
	declared.Pointer(r, c, old, kinds.NewPath("spec").Child("parameters"), func(c *networkingv1.IngressClass) *ref { return c.Spec.Parameters },
		func(now, old *ref, at *kinds.Path) {
			declared.Required(r, now, old, at.Child("kind"), func(p *ref) string { return p.Kind })
			declared.Required(r, now, old, at.Child("name"), func(p *ref) string { return p.Name })
		})
	return r
}

func ingressClass(c *networkingv1.IngressClass) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("spec")
	if len(c.Spec.Controller) > maxController {
		f.TooLong(at.Child("controller"), maxController)
	}
	f.Join(validation.IsDomainPrefixedPath(at.Child("controller").Field(), c.Spec.Controller))
	p := c.Spec.Parameters
	if p == nil {
		return f.List()
	}
	here := at.Child("parameters")
	checkReference(&f, &corev1.TypedLocalObjectReference{APIGroup: p.APIGroup, Kind: p.Kind, Name: p.Name}, here)
	if p.Scope == nil {
		f.Required(here.Child("scope"), "")
		return f.List()
	}
	kinds.OneOf(&f, here.Child("scope"), *p.Scope, networkingv1.IngressClassParametersReferenceScopeCluster,
		networkingv1.IngressClassParametersReferenceScopeNamespace)
	namespace := here.Child("namespace")
	switch *p.Scope {
	case networkingv1.IngressClassParametersReferenceScopeNamespace:
		if p.Namespace == nil {
			f.Required(namespace, "`parameters.scope` is set to 'Namespace'")
			break
		}
		f.Each(namespace, *p.Namespace, apivalidation.ValidateNamespaceName(*p.Namespace, false))
	case networkingv1.IngressClassParametersReferenceScopeCluster:
		if p.Namespace != nil {
			f.Forbidden(namespace, "`parameters.scope` is set to 'Cluster'")
		}
	}
	return f.List()
}

func validateIngressClassUpdate(c, old *networkingv1.IngressClass) field.ErrorList {
	var f kinds.Faults
	f.Immutable(kinds.NewPath("spec").Child("controller"), c.Spec.Controller, old.Spec.Controller)
	f.Join(ingressClass(c))
	return classRules(c, old).Behind(f.List())
}
