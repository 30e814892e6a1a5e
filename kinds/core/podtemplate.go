package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

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
		Strategy: kinds.Strategy{
			Ratchet:        TemplateRatchet("template"),
			ReturnsDeleted: true,
			Default:        kinds.Each(func(t *corev1.PodTemplate) { DefaultPodTemplate(&t.Template) }),
			PrepareCreate: kinds.Each(func(t *corev1.PodTemplate) {
				kinds.FirstGeneration(t)
				DropUnservedTemplate(&t.Template, nil)
			}),
			PrepareUpdate: kinds.Pair(func(t, old *corev1.PodTemplate) {
				DropUnservedTemplate(&t.Template, &old.Template)
				kinds.NextGeneration(t, old, !kinds.Same(t.Template, old.Template))
			}),
			Validate:       kinds.Check(validatePodTemplateObject),
			ValidateUpdate: kinds.CheckUpdate(func(t, _ *corev1.PodTemplate) field.ErrorList { return validatePodTemplateObject(t) }),
			Warnings:       TemplateWarnings(func(t *corev1.PodTemplate) *corev1.PodTemplateSpec { return &t.Template }, "template"),
			Generation:     true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(podTemplateTexts(), "Name", "Containers", "Images", "Pod Labels"),
			Row: kinds.Row(func(t *corev1.PodTemplate, _ time.Time) []any {
				names, images := kinds.ContainerCells(t.Template.Spec.Containers)
				return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
			}),
		},
	}
}

func validatePodTemplateObject(t *corev1.PodTemplate) field.ErrorList {
	return ValidatePodTemplate(&t.Template, kinds.NewPath("template"))
}
