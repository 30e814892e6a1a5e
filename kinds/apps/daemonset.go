package apps

import (
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// DaemonSet is the kind that keeps one pod on every node it selects.
func DaemonSet() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("DaemonSet"),
		Resource:   "daemonsets",
		Singular:   "daemonset",
		Short:      []string{"ds"},
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "daemonsets",
		New:        func() kinds.Object { return &appsv1.DaemonSet{} },
		NewList:    func() runtime.Object { return &appsv1.DaemonSetList{} },
		Strategy: kinds.Strategy{
			Ratchet:        append(core.TemplateRatchet("spec.template"), core.OldSelector),
			Default:        kinds.Each(defaultDaemonSet),
			PrepareCreate:  kinds.Each(prepareDaemonSet),
			PrepareUpdate:  kinds.Pair(prepareDaemonSetUpdate),
			Validate:       kinds.Check(validateDaemonSet),
			ValidateUpdate: kinds.CheckUpdate(validateDaemonSetUpdate),
			Warnings:       core.TemplateWarnings(func(d *appsv1.DaemonSet) *corev1.PodTemplateSpec { return &d.Spec.Template }, "spec", "template"),
			Generation:     true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(daemonSetTexts(), "Name", "Desired|integer", "Current|integer", "Ready|integer",
				"Up-to-date|integer", "Available|integer", "Node Selector", "Age",
				"Containers|wide", "Images|wide", "Selector|wide"),
			Row: kinds.Row(daemonSetRow),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *appsv1.DaemonSet) { next.Status = body.Status }, validateDaemonSetStatusUpdate),
		},
	}
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	core.DefaultPodTemplate(&d.Spec.Template)
	orDefault(&d.Spec.RevisionHistoryLimit, 10)
	strategy := &d.Spec.UpdateStrategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if strategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return
	}
	orDefault(&strategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
	orDefault(&strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
	orDefault(&strategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
}

func prepareDaemonSet(d *appsv1.DaemonSet) {
	d.Status = appsv1.DaemonSetStatus{}
	kinds.FirstGeneration(d)
	core.DropUnservedTemplate(&d.Spec.Template, nil)
	setTemplateGeneration(d, max(templateGeneration(d), 1))
}

func prepareDaemonSetUpdate(d, old *appsv1.DaemonSet) {
	d.Status = old.Status
	core.DropUnservedTemplate(&d.Spec.Template, &old.Spec.Template)
	generation := templateGeneration(old)
	if !kinds.Same(d.Spec.Template, old.Spec.Template) {
		generation++
	}
	setTemplateGeneration(d, generation)
	kinds.NextGeneration(d, old, !kinds.Same(d.Spec, old.Spec))
}

// The template has a generation of its own, which only an annotation shows
// since apps/v1; daemon pods carry it as a label.
func templateGeneration(d *appsv1.DaemonSet) int64 {
	generation, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		return 0
	}
	return generation
}

func setTemplateGeneration(d *appsv1.DaemonSet, generation int64) {
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(generation, 10)
}

func daemonSetRow(d *appsv1.DaemonSet, now time.Time) []any {
	names, images := kinds.ContainerCells(d.Spec.Template.Spec.Containers)
	s := d.Status
	return []any{d.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady),
		int64(s.UpdatedNumberScheduled), int64(s.NumberAvailable), labels.FormatLabels(d.Spec.Template.Spec.NodeSelector),
		kinds.Created(d, now), names, images, metav1.FormatLabelSelector(d.Spec.Selector)}
}
