package core

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// validateBinding wants a node by name; an empty kind means a node.
func validateBinding(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	target := kinds.NewPath("target")
	if kind := b.Target.Kind; kind != "" && kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind").Field(), kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		return append(errs, field.Required(target.Child("name").Field(), ""))
	}
	for _, message := range apivalidation.NameIsDNSSubdomain(b.Target.Name, false) {
		errs = append(errs, field.Invalid(target.Child("name").Field(), b.Target.Name, message))
	}
	return errs
}
