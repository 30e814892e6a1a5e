package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Binding is the kind that puts a pod on a node. It is never stored.
func Binding() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Binding"),
		Resource:   "bindings",
		Singular:   "binding",
		Namespaced: true,
		New:        func() kinds.Object { return &corev1.Binding{} },
		NewList:    func() runtime.Object { return &corev1.List{} },
		Verbs:      []string{"create"},
		Strategy:   kinds.Strategy{Validate: kinds.Check(validateBinding)},
	}
}
