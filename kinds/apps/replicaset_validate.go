package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

func validateReplicaSet(r *appsv1.ReplicaSet) field.ErrorList {
	var f kinds.Faults
	at, spec := kinds.NewPath("spec"), &r.Spec
	f.NonNegative(at.Child("replicas"), int64(kinds.Deref(spec.Replicas)))
	f.NonNegative(at.Child("minReadySeconds"), int64(spec.MinReadySeconds))
	// Upstream's message calls a replica set a deployment; so do its clients.
	if checkSelector(&f, spec.Selector, &spec.Template, "deployment", "invalid label selector") {
		f.Join(core.ValidateLastingTemplate(&spec.Template, "ReplicaSet", at.Child("template")))
	}
	return f.List()
}

func validateReplicaSetUpdate(r, old *appsv1.ReplicaSet) field.ErrorList {
	var f kinds.Faults
	f.Join(validateReplicaSet(r))
	f.Immutable(kinds.NewPath("spec").Child("selector"), r.Spec.Selector, old.Spec.Selector)
	return f.List()
}

func validateReplicaSetStatusUpdate(r, _ *appsv1.ReplicaSet) field.ErrorList {
	var f kinds.Faults
	at, s := kinds.NewPath("status"), &r.Status
	f.NonNegative(at.Child("replicas"), int64(s.Replicas))
	f.NonNegative(at.Child("observedGeneration"), s.ObservedGeneration)
	f.NonNegative(at.Child("terminatingReplicas"), int64(kinds.Deref(s.TerminatingReplicas)))
	f.Within(at, s.Replicas, "status.replicas", kinds.Count{Field: "fullyLabeledReplicas", Value: s.FullyLabeledReplicas},
		kinds.Count{Field: "readyReplicas", Value: s.ReadyReplicas}, kinds.Count{Field: "availableReplicas", Value: s.AvailableReplicas})
	if s.AvailableReplicas > s.ReadyReplicas {
		f.Invalid(at.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas")
	}
	return f.List()
}
