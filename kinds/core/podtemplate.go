package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// PodTemplate is the kind that keeps a pod template by itself.
func PodTemplate() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("PodTemplate"),
		Resource:   "podtemplates",
		Singular:   "podtemplate",
		Namespaced: true,
		Storage:    "podtemplates",
		New:        func() kinds.Object { return &corev1.PodTemplate{} },
		NewList:    func() runtime.Object { return &corev1.PodTemplateList{} },
		Table: kinds.Table{
			Columns: kinds.Columns("Name", "Containers", "Images", "Pod Labels"),
			Row: kinds.Row(func(t *corev1.PodTemplate, _ time.Time) []any {
				names, images := kinds.ContainerCells(t.Template.Spec.Containers)
				return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
			}),
		},
	}
}
