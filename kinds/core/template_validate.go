package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// ValidateWorkloadSelector checks the selector of a workload: it is there, says
// something, and matches the labels of the template. Word is what the messages
// call the workload.
func ValidateWorkloadSelector(s *metav1.LabelSelector, t *corev1.PodTemplateSpec, word string, at *field.Path) field.ErrorList {
	var f kinds.Faults
	here := at.Child("selector")
	if s == nil {
		f.Required(here, "")
		return f.List()
	}
	f.Join(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, here))
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		f.Invalid(here, s, "empty selector is invalid for "+word)
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		f.Invalid(here, s, "invalid label selector")
		return f.List()
	}
	if !selector.Empty() && !selector.Matches(labels.Set(t.Labels)) {
		f.Invalid(at.Child("template", "metadata", "labels"), t.Labels, "`selector` does not match template `labels`")
	}
	return f.List()
}

// ValidateLastingTemplate checks the template of pods that are meant to run for
// ever. Kind is what the messages call the workload.
func ValidateLastingTemplate(t *corev1.PodTemplateSpec, kind string, at *field.Path) field.ErrorList {
	var f kinds.Faults
	f.Join(ValidatePodTemplate(t, at))
	f.Join(ValidateLasting(t, kind, at))
	return f.List()
}

// ValidateLasting is ValidateLastingTemplate's part that is not about pods.
func ValidateLasting(t *corev1.PodTemplateSpec, kind string, at *field.Path) field.ErrorList {
	var f kinds.Faults
	kinds.OneOf(&f, at.Child("spec", "restartPolicy"), t.Spec.RestartPolicy, corev1.RestartPolicyAlways)
	if t.Spec.ActiveDeadlineSeconds != nil {
		f.Forbidden(at.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported")
	}
	return f.List()
}
