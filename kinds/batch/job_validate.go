package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// The limits of an indexed job: its status lists indexes, which must fit.
const (
	maxIndexedParallelism = 100_000
	maxFailedIndexes      = 100_000
	manyCompletions       = 100_000
	maxParallelismOfMany  = 10_000
	maxFailedOfMany       = 10_000
	maxManagedBy          = 63
)

func validateJob(j *batchv1.Job) field.ErrorList {
	var f kinds.Faults
	checkGenerated(&f, j)
	checkSelectedSpec(&f, &j.Spec)
	checkPodNames(&f, j)
	return f.List()
}

// checkGenerated: unless the user takes care of it, selector and labels are the
// ones that prepareJob made.
func checkGenerated(f *kinds.Faults, j *batchv1.Job) {
	if kinds.Deref(j.Spec.ManualSelector) || j.Spec.Selector == nil {
		return
	}
	f.NonEmpty(kinds.NewPath("metadata").Child("uid"), string(j.UID))
	want := labels.Set{
		legacyControllerUID:        string(j.UID),
		legacyJobName:              j.Name,
		batchv1.ControllerUidLabel: string(j.UID),
		batchv1.JobNameLabel:       j.Name,
	}
	at := kinds.NewPath("spec").Child("template").Child("metadata").Child("labels")
	for key, value := range want {
		have, ok := j.Spec.Template.Labels[key]
		switch {
		case !ok:
			f.Required(at.Key(key), fmt.Sprintf("must be '%s'", value))
		case have != value:
			f.Invalid(at.Key(key), j.Spec.Template.Labels, fmt.Sprintf("must be '%s'", value))
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(j.Spec.Selector)
	if err == nil && !selector.Matches(want) {
		f.Invalid(kinds.NewPath("spec").Child("selector"), j.Spec.Selector, "`selector` not auto-generated")
	}
}

func checkSelectedSpec(f *kinds.Faults, spec *batchv1.JobSpec) {
	at := kinds.NewPath("spec")
	f.Join(validateJobSpec(spec, at))
	if spec.Selector == nil {
		f.Required(at.Child("selector"), "")
	}
	f.Join(metavalidation.ValidateLabelSelector(spec.Selector, metavalidation.LabelSelectorValidationOptions{}, at.Child("selector").Field()))
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	if err == nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		f.Invalid(at.Child("template").Child("metadata").Child("labels"), spec.Template.Labels, "`selector` does not match template `labels`")
	}
}

// checkPodNames: the pods of an indexed job are named NAME-INDEX, and that must
// be possible for the last index too.
func checkPodNames(f *kinds.Faults, j *batchv1.Job) {
	if !indexed(&j.Spec) || kinds.Deref(j.Spec.Completions) == 0 {
		return
	}
	last := fmt.Sprintf("%s-%d", j.Name, *j.Spec.Completions-1)
	if len(validation.IsDNS1123Label(last)) > 0 {
		f.Invalid(kinds.NewPath("metadata").Child("name"), j.Name, "will not able to create pod with invalid DNS label: "+last)
	}
}

func indexed(spec *batchv1.JobSpec) bool {
	return kinds.Deref(spec.CompletionMode) == batchv1.IndexedCompletion
}

// validateJobSpec checks what jobs and the templates of cron jobs share.
func validateJobSpec(spec *batchv1.JobSpec, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	f.NonNegative(at.Child("parallelism"), int64(kinds.Deref(spec.Parallelism)))
	f.NonNegative(at.Child("completions"), int64(kinds.Deref(spec.Completions)))
	f.NonNegative(at.Child("activeDeadlineSeconds"), kinds.Deref(spec.ActiveDeadlineSeconds))
	f.NonNegative(at.Child("backoffLimit"), int64(kinds.Deref(spec.BackoffLimit)))
	f.NonNegative(at.Child("ttlSecondsAfterFinished"), int64(kinds.Deref(spec.TTLSecondsAfterFinished)))
	f.NonNegative(at.Child("backoffLimitPerIndex"), int64(kinds.Deref(spec.BackoffLimitPerIndex)))
	f.NonNegative(at.Child("maxFailedIndexes"), int64(kinds.Deref(spec.MaxFailedIndexes)))
	if spec.MaxFailedIndexes != nil && spec.BackoffLimitPerIndex == nil {
		f.Required(at.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified")
	}
	if spec.ManagedBy != nil {
		f.Join(validation.IsDomainPrefixedPath(at.Child("managedBy").Field(), *spec.ManagedBy))
		if len(*spec.ManagedBy) > maxManagedBy {
			f.TooLong(at.Child("managedBy"), maxManagedBy)
		}
	}
	if spec.CompletionMode != nil {
		kinds.Listed(&f, at.Child("completionMode"), *spec.CompletionMode, batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)
	}
	if indexed(spec) {
		checkIndexed(&f, spec, at)
	} else if spec.CompletionMode == nil || *spec.CompletionMode == batchv1.NonIndexedCompletion {
		if spec.BackoffLimitPerIndex != nil {
			f.Invalid(at.Child("backoffLimitPerIndex"), *spec.BackoffLimitPerIndex, indexedOnly)
		}
		if spec.MaxFailedIndexes != nil {
			f.Invalid(at.Child("maxFailedIndexes"), *spec.MaxFailedIndexes, indexedOnly)
		}
	}
	checkPolicies(&f, spec, at)
	f.Join(core.ValidatePodTemplate(&spec.Template, at.Child("template")))
	checkJobRestart(&f, spec, at.Child("template").Child("spec").Child("restartPolicy"))
	return f.List()
}

func checkIndexed(f *kinds.Faults, spec *batchv1.JobSpec, at *kinds.Path) {
	parallel, failed := kinds.Deref(spec.Parallelism), kinds.Deref(spec.MaxFailedIndexes)
	if spec.Completions == nil {
		f.Required(at.Child("completions"), "when completion mode is Indexed")
	}
	if parallel > maxIndexedParallelism {
		f.Invalid(at.Child("parallelism"), parallel,
			fmt.Sprintf("must be less than or equal to %d when completion mode is Indexed", maxIndexedParallelism))
	}
	if spec.Completions != nil && failed > *spec.Completions {
		f.Invalid(at.Child("maxFailedIndexes"), failed, "must be less than or equal to completions")
	}
	if failed > maxFailedIndexes {
		f.Invalid(at.Child("maxFailedIndexes"), failed, fmt.Sprintf("must be less than or equal to %d", maxFailedIndexes))
	}
	if kinds.Deref(spec.Completions) <= manyCompletions || spec.BackoffLimitPerIndex == nil {
		return
	}
	const many = "must be less than or equal to %d when completions are above %d and used with backoff limit per index"
	if spec.MaxFailedIndexes == nil {
		f.Required(at.Child("maxFailedIndexes"), fmt.Sprintf("must be specified when completions is above %d", manyCompletions))
	}
	if parallel > maxParallelismOfMany {
		f.Invalid(at.Child("parallelism"), parallel, fmt.Sprintf(many, maxParallelismOfMany, manyCompletions))
	}
	if failed > maxFailedOfMany {
		f.Invalid(at.Child("maxFailedIndexes"), failed, fmt.Sprintf(many, maxFailedOfMany, manyCompletions))
	}
}

// checkJobRestart: a pod that is always restarted never ends.
func checkJobRestart(f *kinds.Faults, spec *batchv1.JobSpec, at *kinds.Path) {
	policy := spec.Template.Spec.RestartPolicy
	switch {
	case policy == corev1.RestartPolicyAlways || policy == "":
		f.Required(at, `valid values: "OnFailure", "Never"`)
	case policy != corev1.RestartPolicyOnFailure && policy != corev1.RestartPolicyNever:
		kinds.Listed(f, at, policy, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	case spec.PodFailurePolicy != nil && policy != corev1.RestartPolicyNever:
		f.Invalid(at, policy, `only "Never" is supported when podFailurePolicy is specified`)
	}
}

// warnOfMany warns of indexed jobs so large that their status may not hold which
// indexes have failed. at is where the spec lies.
func warnOfMany(spec *batchv1.JobSpec, at string) []string {
	if !indexed(spec) || kinds.Deref(spec.Completions) <= manyCompletions || kinds.Deref(spec.Parallelism) <= maxParallelismOfMany {
		return nil
	}
	return []string{at + ": In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"}
}
