package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validateReplicationController(c *corev1.ReplicationController) field.ErrorList {
	var f kinds.Faults
	at, spec := kinds.NewPath("spec"), &c.Spec
	f.NonNegative(at.Child("minReadySeconds"), int64(spec.MinReadySeconds))
	if len(spec.Selector) == 0 {
		f.Required(at.Child("selector"), "")
	}
	if spec.Replicas == nil {
		f.Required(at.Child("replicas"), "")
	}
	f.NonNegative(at.Child("replicas"), int64(kinds.Deref(spec.Replicas)))
	if spec.Template == nil {
		f.Required(at.Child("template"), "")
		return f.List()
	}
	if !labels.SelectorFromSet(spec.Selector).Matches(labels.Set(spec.Template.Labels)) {
		f.Invalid(at.Child("template").Child("metadata").Child("labels"), spec.Template.Labels, "`selector` does not match template `labels`")
	}
	f.Join(ValidateLastingTemplate(spec.Template, "ReplicationController", at.Child("template")))
	return f.List()
}

func validateReplicationControllerStatus(c, _ *corev1.ReplicationController) field.ErrorList {
	var f kinds.Faults
	at, s := kinds.NewPath("status"), &c.Status
	f.NonNegative(at.Child("replicas"), int64(s.Replicas))
	f.NonNegative(at.Child("observedGeneration"), s.ObservedGeneration)
	f.Within(at, s.Replicas, "status.replicas", kinds.Count{Field: "fullyLabeledReplicas", Value: s.FullyLabeledReplicas},
		kinds.Count{Field: "readyReplicas", Value: s.ReadyReplicas}, kinds.Count{Field: "availableReplicas", Value: s.AvailableReplicas})
	if s.AvailableReplicas > s.ReadyReplicas {
		f.Invalid(at.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas")
	}
	return f.List()
}
