package batch

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// validateJobUpdate: what pods were made of does not change, except that a
// suspended job, which has none, may be told where to run and on how much.
func validateJobUpdate(j, old *batchv1.Job) field.ErrorList {
	var f kinds.Faults
	at, now, was := kinds.NewPath("spec"), &j.Spec, &old.Spec
	checkSelectedSpec(&f, now)
	switch {
	case !indexed(now):
		f.Immutable(at.Child("completions"), now.Completions, was.Completions)
	case now.Completions != nil && !kinds.Same(now.Completions, was.Completions) && *now.Completions != kinds.Deref(now.Parallelism):
		f.Invalid(at.Child("completions"), now.Completions, "can only be modified in tandem with spec.parallelism")
	}
	f.Immutable(at.Child("selector"), now.Selector, was.Selector)
	checkTemplateUpdate(&f, j, old, at)
	f.Immutable(at.Child("completionMode"), now.CompletionMode, was.CompletionMode)
	f.Immutable(at.Child("podFailurePolicy"), now.PodFailurePolicy, was.PodFailurePolicy)
	f.Immutable(at.Child("backoffLimitPerIndex"), now.BackoffLimitPerIndex, was.BackoffLimitPerIndex)
	f.Immutable(at.Child("managedBy"), now.ManagedBy, was.ManagedBy)
	f.Immutable(at.Child("successPolicy"), now.SuccessPolicy, was.SuccessPolicy)
	checkPodNames(&f, j)
	return f.List()
}

func checkTemplateUpdate(f *kinds.Faults, j, old *batchv1.Job, at *kinds.Path) {
	now, was := &j.Spec.Template, old.Spec.Template.DeepCopy()
	idle := old.Status.StartTime == nil || isTrue(old, batchv1.JobSuspended)
	if !kinds.Deref(old.Spec.Suspend) || !idle || old.Status.Active > 0 {
		f.Immutable(at.Child("template"), now, was)
		return
	}
	takeNodeAffinity(&now.Spec, &was.Spec)
	was.Annotations, was.Labels = now.Annotations, now.Labels
	was.Spec.NodeSelector, was.Spec.Tolerations = now.Spec.NodeSelector, now.Spec.Tolerations
	was.Spec.SchedulingGates = now.Spec.SchedulingGates
	takeResources(now.Spec.Containers, was.Spec.Containers)
	takeResources(now.Spec.InitContainers, was.Spec.InitContainers)
	f.Immutable(at.Child("template.spec"), now.Spec, was.Spec)
}

// takeNodeAffinity gives was the node affinity of now, so that only the rest of
// the affinity is compared.
func takeNodeAffinity(now, was *corev1.PodSpec) {
	switch {
	case now.Affinity == nil && was.Affinity == nil:
	case now.Affinity == nil:
		was.Affinity.NodeAffinity = nil
		if *was.Affinity == (corev1.Affinity{}) {
			was.Affinity = nil
		}
	case was.Affinity == nil:
		was.Affinity = &corev1.Affinity{NodeAffinity: now.Affinity.NodeAffinity}
	default:
		was.Affinity.NodeAffinity = now.Affinity.NodeAffinity
	}
}

func takeResources(now, was []corev1.Container) {
	for i := range was {
		if i < len(now) && len(now) == len(was) && now[i].Name == was[i].Name {
			was[i].Resources = now[i].Resources
		}
	}
}
