// Package policy says what the kinds of the policy group are.
package policy

import (
	"time"

	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{PodDisruptionBudget()} }

// PodDisruptionBudget is the kind that says how many pods an eviction must leave.
func PodDisruptionBudget() *kinds.Kind {
	return &kinds.Kind{
		GVK:        policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"),
		Resource:   "poddisruptionbudgets",
		Singular:   "poddisruptionbudget",
		Short:      []string{"pdb"},
		Namespaced: true,
		Storage:    "poddisruptionbudgets",
		New:        func() kinds.Object { return &policyv1.PodDisruptionBudget{} },
		NewList:    func() runtime.Object { return &policyv1.PodDisruptionBudgetList{} },
		Strategy: kinds.Strategy{
			AnyFinalizer:              true,
			ValidateName:              kinds.PathName,
			PrepareCreate:             kinds.Each(prepare),
			PrepareUpdate:             kinds.Pair(prepareUpdate),
			Validate:                  kinds.Check(validate),
			ValidateUpdate:            kinds.CheckUpdate(validateUpdate),
			Generation:                true,
			ForbidUnconditionalUpdate: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(podDisruptionBudgetTexts(), "Name", "Min Available", "Max Unavailable", "Allowed Disruptions|integer", "Age"),
			Row: kinds.Row(func(b *policyv1.PodDisruptionBudget, now time.Time) []any {
				return []any{b.Name, amount(b.Spec.MinAvailable), amount(b.Spec.MaxUnavailable),
					int64(b.Status.DisruptionsAllowed), kinds.Created(b, now)}
			}),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *policyv1.PodDisruptionBudget) { next.Status = body.Status }, validateStatus),
		},
	}
}

func prepare(b *policyv1.PodDisruptionBudget) {
	b.Status = policyv1.PodDisruptionBudgetStatus{}
	kinds.FirstGeneration(b)
}

func prepareUpdate(b, old *policyv1.PodDisruptionBudget) {
	b.Status = old.Status
	kinds.NextGeneration(b, old, !kinds.Same(b.Spec, old.Spec))
}

func amount(v *intstr.IntOrString) string {
	if v == nil {
		return "N/A"
	}
	return v.String()
}
