package batch

import (
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// outcome is what a job's conditions say about its end.
type outcome struct{ complete, failed, failing, succeeding bool }

func outcomeOf(j *batchv1.Job) outcome {
	return outcome{
		complete: isTrue(j, batchv1.JobComplete), failed: isTrue(j, batchv1.JobFailed),
		failing: isTrue(j, batchv1.JobFailureTarget), succeeding: isTrue(j, batchv1.JobSuccessCriteriaMet),
	}
}

func (o outcome) finished() bool { return o.complete || o.failed }

// statusChange is a change of a job's status, and what is wrong with it. What was
// wrong before may stay so, for other changes to get through: a rule speaks only when
// what it is about has changed.
type statusChange struct {
	kinds.Faults
	job, before *batchv1.Job
	now, was    *batchv1.JobStatus
	is, had     outcome
	at          *kinds.Path
}

// validateJobStatusUpdate keeps controllers, the built-in one and others, to
// what clients rely on: a job ends once, one way, after its pods. The order of the
// rules is upstream's: first the status itself, then what became of the old one.
func validateJobStatusUpdate(j, old *batchv1.Job) field.ErrorList {
	c := statusChange{job: j, before: old, now: &j.Status, was: &old.Status, is: outcomeOf(j), had: outcomeOf(old), at: kinds.NewPath("status")}
	c.checkCounts()
	c.checkUncounted()
	c.checkCompletion()
	c.checkFinished()
	c.checkIndexes()
	c.checkPods()
	c.checkSuccess()
	c.checkUndone()
	return c.List()
}

func (c *statusChange) checkCounts() {
	for _, count := range []struct {
		field string
		value int32
	}{
		{"active", c.now.Active}, {"succeeded", c.now.Succeeded}, {"failed", c.now.Failed},
		{"ready", kinds.Deref(c.now.Ready)}, {"terminating", kinds.Deref(c.now.Terminating)},
	} {
		c.NonNegative(c.at.Child(count.field), int64(count.value))
	}
}

func (c *statusChange) checkUncounted() {
	u := c.now.UncountedTerminatedPods
	if u == nil {
		return
	}
	seen := map[types.UID]bool{}
	for _, list := range []struct {
		field string
		uids  []types.UID
	}{{"succeeded", u.Succeeded}, {"failed", u.Failed}} {
		for i, uid := range list.uids {
			here := c.at.Child("uncountedTerminatedPods").Child(list.field).Index(i)
			switch {
			case uid == "":
				c.Invalid(here, uid, "must not be empty")
			case seen[uid]:
				c.Duplicate(here, uid)
			}
			seen[uid] = true
		}
	}
}

// condition refuses a set of conditions.
func (c *statusChange) condition(broken bool, text string) {
	if broken {
		c.Invalid(c.at.Child("conditions"), field.OmitValueType{}, text)
	}
}

// checkCompletion: there is one end, and a time of it if it is a good one.
func (c *statusChange) checkCompletion() {
	completes, fails := c.is.complete != c.had.complete, c.is.failed != c.had.failed
	started, ended := !kinds.Same(c.now.StartTime, c.was.StartTime), !kinds.Same(c.now.CompletionTime, c.was.CompletionTime)
	end := c.at.Child("completionTime")
	c.condition(c.is.complete && c.is.failed && (completes || fails), "cannot set Complete=True and Failed=true conditions")
	c.condition(c.is.complete && c.is.failing && (completes || c.is.failing != c.had.failing), "cannot set Complete=True and FailureTarget=true conditions")
	switch t := c.now.CompletionTime; {
	case !completes && !ended:
	case t != nil && !c.is.complete:
		c.Invalid(end, t, "cannot set completionTime when there is no Complete=True condition")
	case t == nil && c.is.complete:
		c.Required(end, "completionTime is required for Complete jobs")
	}
	if (started || ended) && c.now.StartTime != nil && c.now.CompletionTime != nil && c.now.CompletionTime.Before(c.now.StartTime) {
		c.Invalid(end, c.now.CompletionTime, "must be equal to or after `startTime`")
	}
	c.condition(c.is.failed && !c.is.failing && (fails || c.losesIndexes()), "cannot set Failed=True condition without the FailureTarget=true condition")
	c.condition(c.is.complete && !c.is.succeeding && (completes || c.is.succeeding != c.had.succeeding),
		"cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
}

// checkFinished: a job that has just been declared finished has no pods left.
func (c *statusChange) checkFinished() {
	if !c.is.finished() {
		return
	}
	changed := !c.had.finished()
	if c.now.Active > 0 && (changed || c.now.Active != c.was.Active) {
		c.Invalid(c.at.Child("active"), c.now.Active, "active>0 is invalid for finished job")
	}
	spec := &c.job.Spec
	empty := kinds.Deref(spec.Suspend) && spec.Completions != nil && *spec.Completions == 0
	if c.now.StartTime == nil && !empty && (changed || c.was.StartTime != nil) {
		c.Required(c.at.Child("startTime"), "startTime is required for finished job")
	}
	if u := c.now.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 && (changed || !kinds.Same(u, c.was.UncountedTerminatedPods)) {
		c.Invalid(c.at.Child("uncountedTerminatedPods"), u, "must be empty for finished job")
	}
}

func (c *statusChange) losesIndexes() bool {
	return !kinds.Same(c.now.FailedIndexes, c.was.FailedIndexes)
}

// checkIndexes: the lists of indexes are of those that there are, and of each in one.
func (c *statusChange) checkIndexes() {
	spec, now := &c.job.Spec, c.now
	completed, failed := now.CompletedIndexes != c.was.CompletedIndexes, c.losesIndexes()
	done, lost := c.at.Child("completedIndexes"), c.at.Child("failedIndexes")
	total := kinds.Deref(spec.Completions)
	good, err := ParseIndexes(now.CompletedIndexes, total)
	if completed && spec.Completions != nil && err != nil {
		c.Invalid(done, now.CompletedIndexes, fmt.Sprintf("error parsing completedIndexes: %s", err))
	}
	var bad []Span
	if now.FailedIndexes != nil {
		bad, err = ParseIndexes(*now.FailedIndexes, total)
		if failed && spec.Completions != nil && spec.BackoffLimitPerIndex != nil && err != nil {
			c.Invalid(lost, now.FailedIndexes, fmt.Sprintf("error parsing failedIndexes: %s", err))
		}
	}
	if completed && now.CompletedIndexes != "" && !indexed(spec) {
		c.Invalid(done, now.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode")
	}
	if failed && now.FailedIndexes != nil && spec.BackoffLimitPerIndex == nil {
		c.Invalid(lost, *now.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null")
	}
	if at, both := overlap(good, bad); both && (failed || completed) && spec.Completions != nil {
		c.Invalid(lost, *now.FailedIndexes, fmt.Sprintf("failedIndexes and completedIndexes overlap at index: %d", at))
	}
}

// overlap finds the first index that is in both lists.
func overlap(good, bad []Span) (at int32, both bool) {
	for _, a := range good {
		for _, b := range bad {
			if a.First <= b.Last && b.First <= a.Last {
				return max(a.First, b.First), true
			}
		}
	}
	return 0, false
}

func (c *statusChange) checkPods() {
	finished := c.is.finished() != c.had.finished()
	if kinds.Deref(c.now.Terminating) > 0 && c.is.finished() && (finished || !kinds.Same(c.now.Terminating, c.was.Terminating)) {
		c.Invalid(c.at.Child("terminating"), c.now.Terminating, "terminating>0 is invalid for finished job")
	}
	if r := c.now.Ready; r != nil && *r > c.now.Active && (!kinds.Same(r, c.was.Ready) || c.now.Active != c.was.Active) {
		c.Invalid(c.at.Child("ready"), *r, "cannot set more ready pods than active")
	}
}

func (c *statusChange) checkSuccess() {
	c.condition(c.is.succeeding && c.is.failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions")
	c.condition(c.is.succeeding && c.is.failing, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions")
	c.condition(c.job.Spec.SuccessPolicy != nil && !c.is.succeeding && c.is.complete,
		"cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True")
}

// checkUndone: what was said for good is not taken back.
func (c *statusChange) checkUndone() {
	spec, now, was := &c.job.Spec, c.now, c.was
	c.condition(c.had.failed && !c.is.failed, "cannot disable the terminal Failed=True condition")
	c.condition(c.had.complete && !c.is.complete, "cannot disable the terminal Complete=True condition")
	c.condition(c.had.failing && !c.is.failing, "cannot disable the terminal FailureTarget=True condition")
	if now.Failed < was.Failed {
		c.Invalid(c.at.Child("failed"), now.Failed, "cannot decrease the failed counter")
	}
	elastic := indexed(spec) && kinds.Same(spec.Completions, spec.Parallelism)
	if !elastic && now.Succeeded < was.Succeeded {
		c.Invalid(c.at.Child("succeeded"), now.Succeeded, "cannot decrease the succeeded counter")
	}
	if now.CompletionTime != nil && was.CompletionTime != nil && !kinds.Same(now.CompletionTime, was.CompletionTime) {
		c.Invalid(c.at.Child("completionTime"), now.CompletionTime, "field is immutable")
	}
	resuming := isTrue(c.before, batchv1.JobSuspended) && isFalse(c.job, batchv1.JobSuspended)
	if was.StartTime != nil && !kinds.Same(now.StartTime, was.StartTime) && !resuming && !kinds.Deref(spec.Suspend) {
		c.Invalid(c.at.Child("startTime"), now.StartTime, "field is immutable for unsuspended job once set")
	}
	c.condition(c.had.succeeding && !c.is.succeeding, "cannot disable the SuccessCriteriaMet=True condition")
	c.condition(c.had.complete && !c.had.succeeding && c.is.succeeding, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")
}

func isFalse(j *batchv1.Job, kind batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionFalse
		}
	}
	return false
}
