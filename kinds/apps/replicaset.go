package apps

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// ReplicaSet is the kind that keeps a number of equal pods.
func ReplicaSet() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("ReplicaSet"),
		Resource:   "replicasets",
		Singular:   "replicaset",
		Short:      []string{"rs"},
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "replicasets",
		New:        func() kinds.Object { return &appsv1.ReplicaSet{} },
		NewList:    func() runtime.Object { return &appsv1.ReplicaSetList{} },
		Strategy: kinds.Strategy{
			Ratchet:        core.TemplateRatchet("spec.template"),
			Default:        kinds.Each(defaultReplicaSet),
			PrepareCreate:  kinds.Each(prepareReplicaSet),
			PrepareUpdate:  kinds.Pair(prepareReplicaSetUpdate),
			Validate:       kinds.Check(validateReplicaSet),
			ValidateUpdate: kinds.CheckUpdate(validateReplicaSetUpdate),
			Warnings: kinds.WarnAll(kinds.WarnOfName, kinds.WarnWhenChanged(
				core.TemplateWarnings(func(r *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return &r.Spec.Template }, "spec", "template"))),
			Generation: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(replicaSetTexts(), "Name", "Desired|integer", "Current|integer", "Ready|integer", "Age",
				"Containers|wide", "Images|wide", "Selector|wide"),
			Row: kinds.Row(replicaSetRow),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *appsv1.ReplicaSet) { next.Status = body.Status }, validateReplicaSetStatusUpdate),
			kinds.ScaleOf(kinds.Scaled[*appsv1.ReplicaSet]{
				Replicas: func(r *appsv1.ReplicaSet) **int32 { return &r.Spec.Replicas },
				Current:  func(r *appsv1.ReplicaSet) int32 { return r.Status.Replicas },
				Selector: func(r *appsv1.ReplicaSet) string { return selectorText(r.Spec.Selector) },
			}),
		},
	}
}

func defaultReplicaSet(r *appsv1.ReplicaSet) {
	core.DefaultPodTemplate(&r.Spec.Template)
	orDefault(&r.Spec.Replicas, 1)
}

func prepareReplicaSet(r *appsv1.ReplicaSet) {
	r.Status = appsv1.ReplicaSetStatus{}
	kinds.FirstGeneration(r)
	core.DropUnservedTemplate(&r.Spec.Template, nil)
}

func prepareReplicaSetUpdate(r, old *appsv1.ReplicaSet) {
	r.Status = old.Status
	core.DropUnservedTemplate(&r.Spec.Template, &old.Spec.Template)
	kinds.NextGeneration(r, old, !kinds.Same(r.Spec, old.Spec))
}

func replicaSetRow(r *appsv1.ReplicaSet, now time.Time) []any {
	names, images := kinds.ContainerCells(r.Spec.Template.Spec.Containers)
	return []any{r.Name, int64(kinds.Deref(r.Spec.Replicas)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
		kinds.Created(r, now), names, images, metav1.FormatLabelSelector(r.Spec.Selector)}
}
