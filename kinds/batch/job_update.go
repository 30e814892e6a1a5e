package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// validateJobUpdate: what pods were made of does not change, except that a
// suspended job, which has none, may be told where to run and on how much.
func validateJobUpdate(j, old *batchv1.Job) field.ErrorList {
	var f kinds.Faults
	at, now, was := field.NewPath("spec"), &j.Spec, &old.Spec
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

func checkTemplateUpdate(f *kinds.Faults, j, old *batchv1.Job, at *field.Path) {
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

// outcome is what a job's conditions say about its end.
type outcome struct{ complete, failed, failing, succeeding bool }

func outcomeOf(j *batchv1.Job) outcome {
	return outcome{
		complete: isTrue(j, batchv1.JobComplete), failed: isTrue(j, batchv1.JobFailed),
		failing: isTrue(j, batchv1.JobFailureTarget), succeeding: isTrue(j, batchv1.JobSuccessCriteriaMet),
	}
}

func (o outcome) finished() bool { return o.complete || o.failed }

// validateJobStatusUpdate keeps controllers, the built-in one and others, to
// what clients rely on: a job ends once, one way, after its pods.
func validateJobStatusUpdate(j, old *batchv1.Job) field.ErrorList {
	var f kinds.Faults
	at := field.NewPath("status")
	s := &j.Status
	for name, value := range map[string]int32{
		"active": s.Active, "succeeded": s.Succeeded, "failed": s.Failed,
		"ready": kinds.Deref(s.Ready), "terminating": kinds.Deref(s.Terminating),
	} {
		f.NonNegative(at.Child(name), int64(value))
	}
	checkUncounted(&f, s.UncountedTerminatedPods, at.Child("uncountedTerminatedPods"))
	checkOutcome(&f, j, old, at.Child("conditions"))
	checkFinished(&f, j, old, at)
	checkTimes(&f, j, old, at)
	checkIndexLists(&f, j, old, at)
	if s.Failed < old.Status.Failed {
		f.Invalid(at.Child("failed"), s.Failed, "cannot decrease the failed counter")
	}
	elastic := indexed(&j.Spec) && kinds.Same(j.Spec.Completions, j.Spec.Parallelism)
	if !elastic && s.Succeeded < old.Status.Succeeded {
		f.Invalid(at.Child("succeeded"), s.Succeeded, "cannot decrease the succeeded counter")
	}
	if s.Ready != nil && *s.Ready > s.Active && (!kinds.Same(s.Ready, old.Status.Ready) || s.Active != old.Status.Active) {
		f.Invalid(at.Child("ready"), *s.Ready, "cannot set more ready pods than active")
	}
	return f.List()
}

func checkUncounted(f *kinds.Faults, u *batchv1.UncountedTerminatedPods, at *field.Path) {
	if u == nil {
		return
	}
	seen := map[types.UID]bool{}
	for _, list := range []struct {
		field string
		uids  []types.UID
	}{{"succeeded", u.Succeeded}, {"failed", u.Failed}} {
		for i, uid := range list.uids {
			here := at.Child(list.field).Index(i)
			switch {
			case uid == "":
				f.Invalid(here, uid, "must not be empty")
			case seen[uid]:
				f.Duplicate(here, uid)
			}
			seen[uid] = true
		}
	}
}

func checkOutcome(f *kinds.Faults, j, old *batchv1.Job, at *field.Path) {
	now, was := outcomeOf(j), outcomeOf(old)
	for _, rule := range []struct {
		broken bool
		text   string
	}{
		{was.failed && !now.failed, "cannot disable the terminal Failed=True condition"},
		{was.complete && !now.complete, "cannot disable the terminal Complete=True condition"},
		{was.failing && !now.failing, "cannot disable the terminal FailureTarget=True condition"},
		{was.succeeding && !now.succeeding, "cannot disable the SuccessCriteriaMet=True condition"},
		{was.complete && !was.succeeding && now.succeeding, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"},
		{now.complete && now.failed && now != was, "cannot set Complete=True and Failed=true conditions"},
		{now.complete && now.failing && now != was, "cannot set Complete=True and FailureTarget=true conditions"},
		{now.failed && !now.failing && now.failed != was.failed, "cannot set Failed=True condition without the FailureTarget=true condition"},
		{now.complete && !now.succeeding && now != was, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"},
		{now.succeeding && now.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"},
		{now.succeeding && now.failing, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"},
		{j.Spec.SuccessPolicy != nil && now.complete && !now.succeeding, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"},
	} {
		if rule.broken {
			f.Invalid(at, field.OmitValueType{}, rule.text)
		}
	}
}

// checkFinished: a job that has just been declared finished has no pods left.
// A status that was wrong before may stay so, for other changes to get through.
func checkFinished(f *kinds.Faults, j, old *batchv1.Job, at *field.Path) {
	now, was := &j.Status, &old.Status
	if !outcomeOf(j).finished() {
		return
	}
	changed := !outcomeOf(old).finished()
	if now.Active > 0 && (changed || now.Active != was.Active) {
		f.Invalid(at.Child("active"), now.Active, "active>0 is invalid for finished job")
	}
	empty := kinds.Deref(j.Spec.Suspend) && j.Spec.Completions != nil && *j.Spec.Completions == 0
	if now.StartTime == nil && !empty && (changed || was.StartTime != nil) {
		f.Required(at.Child("startTime"), "startTime is required for finished job")
	}
	if u := now.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 && (changed || !kinds.Same(u, was.UncountedTerminatedPods)) {
		f.Invalid(at.Child("uncountedTerminatedPods"), u, "must be empty for finished job")
	}
	if kinds.Deref(now.Terminating) > 0 && (changed || !kinds.Same(now.Terminating, was.Terminating)) {
		f.Invalid(at.Child("terminating"), now.Terminating, "terminating>0 is invalid for finished job")
	}
}

func checkTimes(f *kinds.Faults, j, old *batchv1.Job, at *field.Path) {
	now, was := &j.Status, &old.Status
	started, completed := !kinds.Same(now.StartTime, was.StartTime), !kinds.Same(now.CompletionTime, was.CompletionTime)
	complete := outcomeOf(j).complete
	end := at.Child("completionTime")
	if completed || complete != outcomeOf(old).complete {
		switch {
		case now.CompletionTime != nil && !complete:
			f.Invalid(end, now.CompletionTime, "cannot set completionTime when there is no Complete=True condition")
		case now.CompletionTime == nil && complete:
			f.Required(end, "completionTime is required for Complete jobs")
		}
	}
	if (started || completed) && now.StartTime != nil && now.CompletionTime != nil && now.CompletionTime.Before(now.StartTime) {
		f.Invalid(end, now.CompletionTime, "must be equal to or after `startTime`")
	}
	if completed && now.CompletionTime != nil && was.CompletionTime != nil {
		f.Invalid(end, now.CompletionTime, "field is immutable")
	}
	resuming := isTrue(old, batchv1.JobSuspended) && isFalse(j, batchv1.JobSuspended)
	if started && was.StartTime != nil && !resuming && !kinds.Deref(j.Spec.Suspend) {
		f.Invalid(at.Child("startTime"), now.StartTime, "field is immutable for unsuspended job once set")
	}
}

func isFalse(j *batchv1.Job, kind batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionFalse
		}
	}
	return false
}

func checkIndexLists(f *kinds.Faults, j, old *batchv1.Job, at *field.Path) {
	now, was := &j.Status, &old.Status
	completed, failed := now.CompletedIndexes != was.CompletedIndexes, !kinds.Same(now.FailedIndexes, was.FailedIndexes)
	done, lost := at.Child("completedIndexes"), at.Child("failedIndexes")
	total := kinds.Deref(j.Spec.Completions)
	good, err := ParseIndexes(now.CompletedIndexes, total)
	if completed && j.Spec.Completions != nil && err != nil {
		f.Invalid(done, now.CompletedIndexes, fmt.Sprintf("error parsing completedIndexes: %s", err))
	}
	if completed && now.CompletedIndexes != "" && !indexed(&j.Spec) {
		f.Invalid(done, now.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode")
	}
	if now.FailedIndexes == nil || (!failed && !completed) {
		return
	}
	if failed && j.Spec.BackoffLimitPerIndex == nil {
		f.Invalid(lost, *now.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null")
		return
	}
	bad, err := ParseIndexes(*now.FailedIndexes, total)
	if failed && j.Spec.Completions != nil && err != nil {
		f.Invalid(lost, now.FailedIndexes, fmt.Sprintf("error parsing failedIndexes: %s", err))
	}
	for _, a := range good {
		for _, b := range bad {
			if a.First <= b.Last && b.First <= a.Last {
				f.Invalid(lost, *now.FailedIndexes, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", max(a.First, b.First)))
				return
			}
		}
	}
}
