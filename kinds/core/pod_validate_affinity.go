package core

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

const (
	requiredField  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferredField = "preferredDuringSchedulingIgnoredDuringExecution"
)

func (c *podCheck) checkAffinity(at *kinds.Path) {
	a := c.spec.Affinity
	if a == nil {
		return
	}
	if n := a.NodeAffinity; n != nil {
		c.checkNodeAffinity(n, at.Child("nodeAffinity"))
	}
	if p := a.PodAffinity; p != nil {
		c.checkPodTerms(p.RequiredDuringSchedulingIgnoredDuringExecution,
			p.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("podAffinity"))
	}
	if p := a.PodAntiAffinity; p != nil {
		c.checkPodTerms(p.RequiredDuringSchedulingIgnoredDuringExecution,
			p.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("podAntiAffinity"))
	}
}

func (c *podCheck) checkNodeAffinity(n *corev1.NodeAffinity, at *kinds.Path) {
	if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		c.Join(validateNodeSelector(n.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(requiredField)))
	}
	for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
		term, here := &n.PreferredDuringSchedulingIgnoredDuringExecution[i], at.Child(preferredField).Index(i)
		c.checkWeight(term.Weight, here)
		// A preference may have values that no label has: it is never met.
		c.Join(validateNodeTerm(&term.Preference, true, here.Child("preference")))
	}
}

func (c *podCheck) checkWeight(weight int32, at *kinds.Path) {
	if weight < 1 || weight > 100 {
		c.Invalid(at.Child("weight"), weight, "must be in the range 1-100")
	}
}

func (c *podCheck) checkPodTerms(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, at *kinds.Path) {
	for i := range required {
		c.checkPodTerm(&required[i], at.Child(requiredField).Index(i))
	}
	for i := range preferred {
		here := at.Child(preferredField).Index(i)
		c.checkWeight(preferred[i].Weight, here)
		c.checkPodTerm(&preferred[i].PodAffinityTerm, here.Child("podAffinityTerm"))
	}
}

func (c *podCheck) checkPodTerm(t *corev1.PodAffinityTerm, at *kinds.Path) {
	c.selector(t.LabelSelector, at.Child("labelSelector"))
	c.selector(t.NamespaceSelector, at.Child("namespaceSelector"))
	for _, name := range t.Namespaces {
		c.Each(at.Child("namespace"), name, apivalidation.ValidateNamespaceName(name, false))
	}
	c.checkLabelKeys(t.MatchLabelKeys, t.MismatchLabelKeys, t.LabelSelector, at)
	if t.TopologyKey == "" {
		c.Required(at.Child("topologyKey"), "can not be empty")
	}
	c.JoinAt(at.Child("topologyKey"), metavalidation.ValidateLabelName(t.TopologyKey, kinds.Here))
}

// ValidateNodeSelector checks a choice of nodes in a kind of another group.
func ValidateNodeSelector(s *corev1.NodeSelector, at *kinds.Path) field.ErrorList {
	return validateNodeSelector(s, at)
}

// validateNodeSelector checks alternatives of which a node must meet one.
func validateNodeSelector(s *corev1.NodeSelector, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	terms := at.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		f.Required(terms, "must have at least one node selector term")
	}
	for i := range s.NodeSelectorTerms {
		f.Join(validateNodeTerm(&s.NodeSelectorTerms[i], false, terms.Index(i)))
	}
	return f.List()
}

func validateNodeTerm(t *corev1.NodeSelectorTerm, anyValue bool, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	for i := range t.MatchExpressions {
		validateNodeExpression(&f, &t.MatchExpressions[i], anyValue, at.Child("matchExpressions").Index(i))
	}
	for i := range t.MatchFields {
		validateNodeField(&f, &t.MatchFields[i], at.Child("matchFields").Index(i))
	}
	return f.List()
}

func validateNodeExpression(f *kinds.Faults, r *corev1.NodeSelectorRequirement, anyValue bool, at *kinds.Path) {
	values := at.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			f.Required(values, "must be specified when `operator` is 'In' or 'NotIn'")
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			f.Forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			f.Required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'")
		}
	default:
		f.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator")
	}
	f.JoinAt(at.Child("key"), metavalidation.ValidateLabelName(r.Key, kinds.Here))
	if anyValue {
		return
	}
	for i, value := range r.Values {
		f.Each(values.Index(i), value, validation.IsValidLabelValue(value))
	}
}

// validateNodeField checks a requirement on a field of a node; it can only be
// the name.
func validateNodeField(f *kinds.Faults, r *corev1.NodeSelectorRequirement, at *kinds.Path) {
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			f.Required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
		}
	default:
		f.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator")
	}
	if r.Key != "metadata.name" {
		f.Invalid(at.Child("key"), r.Key, "not a valid field selector key")
		return
	}
	for i, name := range r.Values {
		f.Each(at.Child("values").Index(i), name, apivalidation.NameIsDNSSubdomain(name, false))
	}
}
