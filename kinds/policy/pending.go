package policy

import (
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validate(_ *policyv1.PodDisruptionBudget) field.ErrorList          { return nil }
func validateUpdate(_, _ *policyv1.PodDisruptionBudget) field.ErrorList { return nil }
func validateStatus(_, _ *policyv1.PodDisruptionBudget) field.ErrorList { return nil }
