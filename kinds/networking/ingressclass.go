package networking

import (
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// IngressClass is the kind that says which controller serves an ingress.
func IngressClass() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("IngressClass"),
		Resource: "ingressclasses",
		Singular: "ingressclass",
		Storage:  "ingressclasses",
		New:      func() kinds.Object { return &networkingv1.IngressClass{} },
		NewList:  func() runtime.Object { return &networkingv1.IngressClassList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate: true,
			Default:       kinds.Each(defaultIngressClass),
			PrepareCreate: kinds.Each(func(c *networkingv1.IngressClass) { kinds.FirstGeneration(c) }),
			PrepareUpdate: kinds.Pair(func(c, old *networkingv1.IngressClass) {
				kinds.NextGeneration(c, old, !kinds.Same(c.Spec, old.Spec))
			}),
			Validate:       kinds.Check(validateIngressClass),
			ValidateUpdate: kinds.CheckUpdate(validateIngressClassUpdate),
			Generation:     true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(ingressClassTexts(), "Name", "Controller", "Parameters", "Age"),
			Row:     kinds.Row(ingressClassRow),
		},
	}
}

func defaultIngressClass(c *networkingv1.IngressClass) {
	if c.Spec.Parameters != nil && c.Spec.Parameters.Scope == nil {
		scope := networkingv1.IngressClassParametersReferenceScopeCluster
		c.Spec.Parameters.Scope = &scope
	}
}

func ingressClassRow(c *networkingv1.IngressClass, now time.Time) []any {
	name := c.Name
	if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
		name += " (default)"
	}
	parameters := kinds.None
	if p := c.Spec.Parameters; p != nil {
		parameters = p.Kind
		if p.APIGroup != nil {
			parameters += "." + *p.APIGroup
		}
		parameters += "/" + p.Name
	}
	return []any{name, c.Spec.Controller, parameters, kinds.Created(c, now)}
}
