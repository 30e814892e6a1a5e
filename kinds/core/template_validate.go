package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// ValidateLastingTemplate checks the template of pods that are meant to run for
// ever. Kind is what the messages call the workload.
func ValidateLastingTemplate(t *corev1.PodTemplateSpec, kind string, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	f.Join(ValidatePodTemplate(t, at))
	f.Join(ValidateLasting(t, kind, at))
	return f.List()
}

// ValidateLasting is ValidateLastingTemplate's part that is not about pods.
func ValidateLasting(t *corev1.PodTemplateSpec, kind string, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	kinds.OneOf(&f, at.Child("spec").Child("restartPolicy"), t.Spec.RestartPolicy, corev1.RestartPolicyAlways)
	if t.Spec.ActiveDeadlineSeconds != nil {
		f.Forbidden(at.Child("spec").Child("activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported")
	}
	return f.List()
}
