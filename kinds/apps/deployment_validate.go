package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

func validateDeployment(d *appsv1.Deployment) field.ErrorList {
	var f kinds.Faults
	at, spec := kinds.NewPath("spec"), &d.Spec
	f.NonNegative(at.Child("replicas"), int64(kinds.Deref(spec.Replicas)))
	if checkSelector(&f, spec.Selector, &spec.Template, "deployment", "invalid label selector") {
		f.Join(core.ValidateLastingTemplate(&spec.Template, "ReplicaSet", at.Child("template")))
	}
	validateDeploymentStrategy(&f, &spec.Strategy, at.Child("strategy"))
	f.NonNegative(at.Child("minReadySeconds"), int64(spec.MinReadySeconds))
	f.NonNegative(at.Child("revisionHistoryLimit"), int64(kinds.Deref(spec.RevisionHistoryLimit)))
	if deadline := spec.ProgressDeadlineSeconds; deadline != nil {
		f.NonNegative(at.Child("progressDeadlineSeconds"), int64(*deadline))
		if *deadline <= spec.MinReadySeconds {
			f.Invalid(at.Child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds")
		}
	}
	return f.List()
}

func validateDeploymentStrategy(f *kinds.Faults, s *appsv1.DeploymentStrategy, at *kinds.Path) {
	rolling := at.Child("rollingUpdate")
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			f.Forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		if s.RollingUpdate == nil {
			f.Required(rolling, "this should be defaulted and never be nil")
			return
		}
		unavailable, surge := s.RollingUpdate.MaxUnavailable, s.RollingUpdate.MaxSurge
		f.Amount(rolling.Child("maxUnavailable"), unavailable)
		f.Amount(rolling.Child("maxSurge"), surge)
		if kinds.AmountValue(unavailable) == 0 && kinds.AmountValue(surge) == 0 {
			f.Invalid(rolling.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0")
		}
		f.AtMostAll(rolling.Child("maxUnavailable"), unavailable)
	default:
		f.NotSupported(at, s, "Recreate", "RollingUpdate")
	}
}

func validateDeploymentUpdate(d, old *appsv1.Deployment) field.ErrorList {
	var f kinds.Faults
	f.Join(validateDeployment(d))
	f.Immutable(kinds.NewPath("spec").Child("selector"), d.Spec.Selector, old.Spec.Selector)
	return f.List()
}

func validateDeploymentStatusUpdate(d, old *appsv1.Deployment) field.ErrorList {
	var f kinds.Faults
	at, s := kinds.NewPath("status"), &d.Status
	f.NonNegative(at.Child("observedGeneration"), s.ObservedGeneration)
	f.NonNegative(at.Child("replicas"), int64(s.Replicas))
	f.NonNegative(at.Child("unavailableReplicas"), int64(s.UnavailableReplicas))
	f.NonNegative(at.Child("terminatingReplicas"), int64(kinds.Deref(s.TerminatingReplicas)))
	f.Within(at, s.Replicas, "status.replicas", kinds.Count{Field: "updatedReplicas", Value: s.UpdatedReplicas},
		kinds.Count{Field: "readyReplicas", Value: s.ReadyReplicas}, kinds.Count{Field: "availableReplicas", Value: s.AvailableReplicas})
	if s.AvailableReplicas > s.ReadyReplicas {
		f.Invalid(at.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas")
	}
	f.NeverLess(at.Child("collisionCount"), s.CollisionCount, old.Status.CollisionCount)
	return f.List()
}
