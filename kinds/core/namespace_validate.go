package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validateNamespace(n *corev1.Namespace) field.ErrorList {
	var errs field.ErrorList
	for i := range n.Spec.Finalizers {
		errs = append(errs, validateFinalizer(string(n.Spec.Finalizers[i]), kinds.NewPath("spec").Child("finalizers"))...)
	}
	return errs
}

func validateNamespaceUpdate(n, _ *corev1.Namespace) field.ErrorList { return validateNamespace(n) }

// validateFinalizer wants a qualified name, with a domain unless it is one of
// Kubernetes' own.
func validateFinalizer(name string, path *kinds.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsQualifiedName(name) {
		errs = append(errs, field.Invalid(path.Field(), name, msg))
	}
	if !strings.Contains(name, "/") && name != string(corev1.FinalizerKubernetes) {
		errs = append(errs, field.Invalid(path.Field(), name, "name is neither a standard finalizer name nor is it fully qualified"))
	}
	return errs
}

// validateNamespaceStatus: a namespace is Terminating exactly when it is being
// deleted.
func validateNamespaceStatus(n, _ *corev1.Namespace) field.ErrorList {
	path := kinds.NewPath("status").Child("Phase") // upstream's spelling
	deleting := n.DeletionTimestamp != nil
	if !deleting && n.Status.Phase != corev1.NamespaceActive {
		return field.ErrorList{field.Invalid(path.Field(), n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")}
	}
	if deleting && n.Status.Phase != corev1.NamespaceTerminating {
		return field.ErrorList{field.Invalid(path.Field(), n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")}
	}
	return nil
}

func validateNamespaceFinalize(n, _ *corev1.Namespace) field.ErrorList {
	var errs field.ErrorList
	for i := range n.Spec.Finalizers {
		path := kinds.NewPath("spec").Child("finalizers").Index(i)
		errs = append(errs, validateFinalizer(string(n.Spec.Finalizers[i]), path)...)
	}
	return errs
}
