package policy

import (
	policyv1 "k8s.io/api/policy/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validate(b *policyv1.PodDisruptionBudget) field.ErrorList {
	return check(b, metavalidation.LabelSelectorValidationOptions{})
}

func check(b *policyv1.PodDisruptionBudget, labels metavalidation.LabelSelectorValidationOptions) field.ErrorList {
	var f kinds.Faults
	at, spec := kinds.NewPath("spec"), &b.Spec
	if spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		f.Invalid(at, *spec, "minAvailable and maxUnavailable cannot be both set")
	}
	f.Amount(at.Child("minAvailable"), spec.MinAvailable)
	f.AtMostAll(at.Child("minAvailable"), spec.MinAvailable)
	f.Amount(at.Child("maxUnavailable"), spec.MaxUnavailable)
	f.AtMostAll(at.Child("maxUnavailable"), spec.MaxUnavailable)
	f.JoinAt(at.Child("selector"), metavalidation.ValidateLabelSelector(spec.Selector, labels, kinds.Here))
	if spec.UnhealthyPodEvictionPolicy != nil {
		kinds.OneOf(&f, at.Child("unhealthyPodEvictionPolicy"), *spec.UnhealthyPodEvictionPolicy, policyv1.IfHealthyBudget, policyv1.AlwaysAllow)
	}
	return f.List()
}

// validateUpdate lets labels be wrong if the old selector was.
func validateUpdate(b, old *policyv1.PodDisruptionBudget) field.ErrorList {
	wrong := len(metavalidation.ValidateLabelSelector(old.Spec.Selector, metavalidation.LabelSelectorValidationOptions{}, nil)) > 0
	return check(b, metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: wrong})
}

func validateStatus(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	var f kinds.Faults
	at, s := kinds.NewPath("status"), &b.Status
	f.JoinAt(at.Child("conditions"), metavalidation.ValidateConditions(s.Conditions, kinds.Here))
	f.NonNegative(at.Child("disruptionsAllowed"), int64(s.DisruptionsAllowed))
	f.NonNegative(at.Child("currentHealthy"), int64(s.CurrentHealthy))
	f.NonNegative(at.Child("desiredHealthy"), int64(s.DesiredHealthy))
	f.NonNegative(at.Child("expectedPods"), int64(s.ExpectedPods))
	return f.List()
}
