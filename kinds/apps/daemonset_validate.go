package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

func validateDaemonSet(d *appsv1.DaemonSet) field.ErrorList {
	var f kinds.Faults
	at, spec := kinds.NewPath("spec"), &d.Spec
	checkDaemonSelector(&f, spec.Selector, &spec.Template)
	f.Join(core.ValidateLastingTemplate(&spec.Template, "DaemonSet", at.Child("template")))
	f.NonNegative(at.Child("minReadySeconds"), int64(spec.MinReadySeconds))
	strategy, here := &spec.UpdateStrategy, at.Child("updateStrategy")
	switch strategy.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
	case appsv1.RollingUpdateDaemonSetStrategyType:
		if strategy.RollingUpdate == nil {
			f.Required(here.Child("rollingUpdate"), "")
			break
		}
		validateDaemonRollout(&f, strategy.RollingUpdate, here.Child("rollingUpdate"))
	default:
		f.NotSupported(here, strategy, "RollingUpdate", "OnDelete")
	}
	f.NonNegative(at.Child("revisionHistoryLimit"), int64(kinds.Deref(spec.RevisionHistoryLimit)))
	return f.List()
}

// validateDaemonRollout: either the old pod goes first or the new one comes
// first, not both.
func validateDaemonRollout(f *kinds.Faults, r *appsv1.RollingUpdateDaemonSet, at *kinds.Path) {
	unavailable, surge := at.Child("maxUnavailable"), at.Child("maxSurge")
	f.Amount(unavailable, r.MaxUnavailable)
	f.Amount(surge, r.MaxSurge)
	f.AtMostAll(unavailable, r.MaxUnavailable)
	f.AtMostAll(surge, r.MaxSurge)
	hasUnavailable, hasSurge := kinds.AmountValue(r.MaxUnavailable) != 0, kinds.AmountValue(r.MaxSurge) != 0
	switch {
	case hasUnavailable && hasSurge:
		f.Invalid(surge, r.MaxSurge, "may not be set when maxUnavailable is non-zero")
	case !hasUnavailable && !hasSurge:
		f.Required(unavailable, "cannot be 0 when maxSurge is 0")
	}
}

func validateDaemonSetUpdate(d, old *appsv1.DaemonSet) field.ErrorList {
	var f kinds.Faults
	f.Immutable(kinds.NewPath("spec").Child("selector"), d.Spec.Selector, old.Spec.Selector)
	f.Join(validateDaemonSet(d))
	return f.List()
}

func validateDaemonSetStatusUpdate(d, old *appsv1.DaemonSet) field.ErrorList {
	var f kinds.Faults
	at, s := kinds.NewPath("status"), &d.Status
	f.NonNegative(at.Child("observedGeneration"), s.ObservedGeneration)
	for _, c := range []kinds.Count{
		{Field: "currentNumberScheduled", Value: s.CurrentNumberScheduled},
		{Field: "numberMisscheduled", Value: s.NumberMisscheduled},
		{Field: "desiredNumberScheduled", Value: s.DesiredNumberScheduled},
		{Field: "numberReady", Value: s.NumberReady},
		{Field: "updatedNumberScheduled", Value: s.UpdatedNumberScheduled},
		{Field: "numberAvailable", Value: s.NumberAvailable},
		{Field: "numberUnavailable", Value: s.NumberUnavailable},
	} {
		f.NonNegative(at.Child(c.Field), int64(c.Value))
	}
	f.NeverLess(at.Child("collisionCount"), s.CollisionCount, old.Status.CollisionCount)
	return f.List()
}
