package apps

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// Deployment is the kind that rolls replica sets out and back.
func Deployment() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Deployment"),
		Resource:   "deployments",
		Singular:   "deployment",
		Short:      []string{"deploy"},
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "deployments",
		New:        func() kinds.Object { return &appsv1.Deployment{} },
		NewList:    func() runtime.Object { return &appsv1.DeploymentList{} },
		Strategy: kinds.Strategy{
			Ratchet:        core.TemplateRatchet("spec.template"),
			Default:        kinds.Each(defaultDeployment),
			PrepareCreate:  kinds.Each(prepareDeployment),
			PrepareUpdate:  kinds.Pair(prepareDeploymentUpdate),
			Validate:       kinds.Check(validateDeployment),
			ValidateUpdate: kinds.CheckUpdate(validateDeploymentUpdate),
			Warnings: kinds.WarnAll(kinds.WarnOfName, kinds.WarnWhenChanged(
				core.TemplateWarnings(func(d *appsv1.Deployment) *corev1.PodTemplateSpec { return &d.Spec.Template }, "spec", "template"))),
			Generation: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(deploymentTexts(), "Name", "Ready", "Up-to-date", "Available", "Age",
				"Containers|wide", "Images|wide", "Selector|wide"),
			Row: kinds.Row(deploymentRow),
		},
		Subresources: []kinds.Subresource{deploymentStatus(), kinds.ScaleOf(kinds.Scaled[*appsv1.Deployment]{
			Replicas: func(d *appsv1.Deployment) **int32 { return &d.Spec.Replicas },
			Current:  func(d *appsv1.Deployment) int32 { return d.Status.Replicas },
			Selector: func(d *appsv1.Deployment) string { return selectorText(d.Spec.Selector) },
		})},
	}
}

// deploymentStatus leaves the labels alone: old controllers wrote stale ones.
func deploymentStatus() kinds.Subresource {
	sub := kinds.StatusRules(func(next, body *appsv1.Deployment) { next.Status = body.Status }, validateDeploymentStatusUpdate)
	sub.Reset = []string{"spec", "metadata.labels"}
	take := sub.Copy
	sub.Copy = func(next kinds.Object, body runtime.Object) error {
		labels := next.GetLabels()
		if err := take(next, body); err != nil {
			return err
		}
		next.SetLabels(labels)
		return nil
	}
	return sub
}

func defaultDeployment(d *appsv1.Deployment) {
	core.DefaultPodTemplate(&d.Spec.Template)
	orDefault(&d.Spec.Replicas, 1)
	orDefault(&d.Spec.RevisionHistoryLimit, 10)
	orDefault(&d.Spec.ProgressDeadlineSeconds, 600)
	strategy := &d.Spec.Strategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return
	}
	orDefault(&strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
	orDefault(&strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
	orDefault(&strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
}

func prepareDeployment(d *appsv1.Deployment) {
	d.Status = appsv1.DeploymentStatus{}
	kinds.FirstGeneration(d)
	core.DropUnservedTemplate(&d.Spec.Template, nil)
}

// prepareDeploymentUpdate counts annotations as part of what the user wants,
// since rollouts copy them to replica sets.
func prepareDeploymentUpdate(d, old *appsv1.Deployment) {
	d.Status = old.Status
	core.DropUnservedTemplate(&d.Spec.Template, &old.Spec.Template)
	kinds.NextGeneration(d, old, !kinds.Same(d.Spec, old.Spec) || !kinds.Same(d.Annotations, old.Annotations))
}

func deploymentRow(d *appsv1.Deployment, now time.Time) []any {
	names, images := kinds.ContainerCells(d.Spec.Template.Spec.Containers)
	return []any{d.Name, kinds.Ready(d.Status.ReadyReplicas, kinds.Deref(d.Spec.Replicas)), int64(d.Status.UpdatedReplicas),
		int64(d.Status.AvailableReplicas), kinds.Created(d, now), names, images, selectorText(d.Spec.Selector)}
}
