package core

import (
	"maps"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// ReplicationController is the kind that ReplicaSet superseded.
func ReplicationController() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("ReplicationController"),
		Resource:   "replicationcontrollers",
		Singular:   "replicationcontroller",
		Short:      []string{"rc"},
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "controllers",
		New:        func() kinds.Object { return &corev1.ReplicationController{} },
		NewList:    func() runtime.Object { return &corev1.ReplicationControllerList{} },
		Strategy: kinds.Strategy{
			ValidateName:      declared.AnyName,
			Ratchet:           TemplateRatchet("spec.template"),
			OrphansDependents: true,
			Default:           kinds.Each(defaultReplicationController),
			PrepareCreate:     kinds.Each(prepareReplicationController),
			PrepareUpdate:     kinds.Pair(prepareReplicationControllerUpdate),
			Validate: kinds.Check(func(c *corev1.ReplicationController) field.ErrorList {
				return append(validateReplicationController(c), declared.LongName(c.Name)...)
			}),
			ValidateUpdate: kinds.CheckUpdate(func(c, _ *corev1.ReplicationController) field.ErrorList {
				return validateReplicationController(c)
			}),
			Warnings:   replicationControllerWarnings,
			Generation: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(replicationControllerTexts(), "Name", "Desired|integer", "Current|integer", "Ready|integer", "Age",
				"Containers|wide", "Images|wide", "Selector|wide"),
			Row: kinds.Row(replicationControllerRow),
		},
		FieldLabels: []string{"status.replicas"},
		Fields: kinds.Fields(func(c *corev1.ReplicationController) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(c.Status.Replicas))}
		}),
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *corev1.ReplicationController) { next.Status = body.Status }, validateReplicationControllerStatus),
			kinds.ScaleOf(kinds.Scaled[*corev1.ReplicationController]{
				Replicas: func(c *corev1.ReplicationController) **int32 { return &c.Spec.Replicas },
				Current:  func(c *corev1.ReplicationController) int32 { return c.Status.Replicas },
				Selector: func(c *corev1.ReplicationController) string { return labels.SelectorFromSet(c.Spec.Selector).String() },
			}),
		},
	}
}

// defaultReplicationController lets the template's labels stand for labels and
// selector that were left out.
func defaultReplicationController(c *corev1.ReplicationController) {
	if c.Spec.Template != nil && len(c.Spec.Template.Labels) > 0 {
		if len(c.Spec.Selector) == 0 {
			c.Spec.Selector = maps.Clone(c.Spec.Template.Labels)
		}
		if len(c.Labels) == 0 {
			c.Labels = maps.Clone(c.Spec.Template.Labels)
		}
	}
	if c.Spec.Template != nil {
		DefaultPodTemplate(c.Spec.Template)
	}
	if c.Spec.Replicas == nil {
		one := int32(1)
		c.Spec.Replicas = &one
	}
}

func prepareReplicationController(c *corev1.ReplicationController) {
	c.Status = corev1.ReplicationControllerStatus{}
	kinds.FirstGeneration(c)
	DropUnservedTemplate(c.Spec.Template, nil)
}

func prepareReplicationControllerUpdate(c, old *corev1.ReplicationController) {
	c.Status = old.Status
	DropUnservedTemplate(c.Spec.Template, old.Spec.Template)
	kinds.NextGeneration(c, old, !kinds.Same(c.Spec, old.Spec))
}

func replicationControllerRow(c *corev1.ReplicationController, now time.Time) []any {
	var containers []corev1.Container
	if c.Spec.Template != nil {
		containers = c.Spec.Template.Spec.Containers
	}
	names, images := kinds.ContainerCells(containers)
	return []any{c.Name, int64(kinds.Deref(c.Spec.Replicas)), int64(c.Status.Replicas), int64(c.Status.ReadyReplicas),
		kinds.Created(c, now), names, images, labels.FormatLabels(c.Spec.Selector)}
}

// replicationControllerWarnings are those of its pods, and about its name, which is
// part of theirs.
func replicationControllerWarnings(obj, old kinds.Object) []string {
	var w warnings
	if old == nil {
		w.podName(obj.GetName(), "this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v")
	}
	template := func(c *corev1.ReplicationController) *corev1.PodTemplateSpec { return c.Spec.Template }
	if template(obj.(*corev1.ReplicationController)) == nil {
		return w
	}
	return append(w, TemplateWarnings(template, "spec", "template")(obj, old)...)
}
