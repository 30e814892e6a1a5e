package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// positiveText is said of numbers that must be above zero.
const positiveText = "must be greater than zero"

// checkScheduling checks everything that decides which node a pod gets.
func (c *podCheck) checkScheduling(at *kinds.Path) {
	c.JoinAt(at.Child("nodeSelector"), metavalidation.ValidateLabels(c.spec.NodeSelector, kinds.Here))
	c.checkAffinity(at.Child("affinity"))
	c.Join(validateTolerations(c.spec.Tolerations, at.Child("tolerations")))
	c.checkSpread(at.Child("topologySpreadConstraints"))
	gates := sets.New[string]()
	for i, gate := range c.spec.SchedulingGates {
		here := at.Child("schedulingGates").Index(i)
		c.qualified(here, gate.Name)
		if gates.Has(gate.Name) {
			c.Duplicate(here, gate.Name)
		}
		gates.Insert(gate.Name)
	}
}

// validateTolerations checks tolerations: an empty operator means Equal, an
// empty key all keys, an empty effect all effects.
func validateTolerations(list []corev1.Toleration, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	for i := range list {
		t, here := &list[i], at.Index(i)
		if t.Key != "" {
			f.JoinAt(here.Child("key"), metavalidation.ValidateLabelName(t.Key, kinds.Here))
		}
		if t.Key == "" && t.Operator != corev1.TolerationOpExists {
			f.Invalid(here.Child("operator"), t.Operator,
				"operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			f.Invalid(here.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if messages := validation.IsValidLabelValue(t.Value); len(messages) > 0 {
				f.Invalid(here.Child("operator"), t.Value, strings.Join(messages, ";"))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				f.Invalid(here.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'")
			}
		case corev1.TolerationOpLt, corev1.TolerationOpGt: // known, but not served: the feature is off
			f.NotSupported(here.Child("operator"), string(t.Operator), string(corev1.TolerationOpEqual),
				string(corev1.TolerationOpExists), string(corev1.TolerationOpLt), string(corev1.TolerationOpGt))
		default:
			kinds.Listed(&f, here.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
		}
		if t.Effect != "" {
			validateTaintEffect(&f, t.Effect, here.Child("effect"))
		}
	}
	return f.List()
}

func validateTaintEffect(f *kinds.Faults, effect corev1.TaintEffect, at *kinds.Path) {
	kinds.Listed(f, at, effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
}

// positive wants a number above zero.
func positive(f *kinds.Faults, at *kinds.Path, n int64) {
	if n <= 0 {
		f.Invalid(at, n, positiveText)
	}
}

func (c *podCheck) checkSpread(at *kinds.Path) {
	list := c.spec.TopologySpreadConstraints
	for i := range list {
		s, here := &list[i], at.Index(i)
		positive(&c.Faults, here.Child("maxSkew"), int64(s.MaxSkew))
		if s.TopologyKey == "" {
			c.Required(here.Child("topologyKey"), "can not be empty")
		}
		kinds.OneOf(&c.Faults, here.Child("whenUnsatisfiable"), s.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		for _, later := range list[i+1:] {
			if later.TopologyKey == s.TopologyKey && later.WhenUnsatisfiable == s.WhenUnsatisfiable {
				c.Duplicate(here.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", s.TopologyKey, s.WhenUnsatisfiable))
				break
			}
		}
		if s.MinDomains != nil {
			positive(&c.Faults, here.Child("minDomains"), int64(*s.MinDomains))
			if s.WhenUnsatisfiable != corev1.DoNotSchedule {
				c.Invalid(here.Child("minDomains"), s.MinDomains,
					fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, s.WhenUnsatisfiable))
			}
		}
		c.inclusion(s.NodeAffinityPolicy, here.Child("nodeAffinityPolicy"))
		c.inclusion(s.NodeTaintsPolicy, here.Child("nodeTaintsPolicy"))
		c.checkLabelKeys(s.MatchLabelKeys, nil, s.LabelSelector, here)
		c.selector(s.LabelSelector, here.Child("labelSelector"))
	}
}

func (c *podCheck) inclusion(policy *corev1.NodeInclusionPolicy, at *kinds.Path) {
	if policy != nil {
		kinds.OneOf(&c.Faults, at, *policy, corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor)
	}
}

func (c *podCheck) selector(s *metav1.LabelSelector, at *kinds.Path) {
	c.JoinAt(at, metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, kinds.Here))
}

// checkLabelKeys checks keys whose values come from the pod's own labels. When
// it is called they have been merged into the selector's expressions, so a key
// that is there twice has been given twice.
func (c *podCheck) checkLabelKeys(match, mismatch []string, s *metav1.LabelSelector, at *kinds.Path) {
	for _, keys := range []struct {
		field string
		list  []string
	}{{"matchLabelKeys", match}, {"mismatchLabelKeys", mismatch}} {
		if len(keys.list) > 0 && s == nil {
			c.Forbidden(at.Child(keys.field), "must not be specified when labelSelector is not set")
			continue
		}
		for i, key := range keys.list {
			c.JoinAt(at.Child(keys.field).Index(i), metavalidation.ValidateLabelName(key, kinds.Here))
		}
	}
	index := map[string]int{}
	for i, key := range match {
		index[key] = i
	}
	if s != nil {
		seen := sets.KeySet(s.MatchLabels)
		for _, expression := range s.MatchExpressions {
			if i, merged := index[expression.Key]; merged && seen.Has(expression.Key) {
				c.Invalid(at.Index(i), expression.Key, "exists in both matchLabelKeys and labelSelector")
			}
			seen.Insert(expression.Key)
		}
	}
	for _, key := range mismatch {
		if i, both := index[key]; both {
			c.Invalid(at.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys")
		}
	}
}
