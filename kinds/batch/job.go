package batch

import (
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// The labels by which a job's pods carried its name and uid before they had a
// domain; they are still written.
const (
	legacyJobName       = "job-name"
	legacyControllerUID = "controller-uid"
)

// Job is the kind that runs pods until enough of them have succeeded.
func Job() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Job"),
		Resource:   "jobs",
		Singular:   "job",
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "jobs",
		New:        func() kinds.Object { return &batchv1.Job{} },
		NewList:    func() runtime.Object { return &batchv1.JobList{} },
		Strategy: kinds.Strategy{
			Ratchet:           append(core.TemplateRatchet("spec.template"), core.OldSelector),
			OrphansDependents: true,
			OrphanWarning: "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them " +
				"or set propagationPolicy=Orphan to suppress this warning",
			Default:        kinds.Each(defaultJob),
			PrepareCreate:  kinds.Each(prepareJob),
			PrepareUpdate:  kinds.Pair(prepareJobUpdate),
			Validate:       kinds.Check(validateJob),
			ValidateUpdate: kinds.CheckUpdate(validateJobUpdate),
			Warnings: kinds.WarnAll(kinds.WarnOfName, kinds.WarnWhenChanged(kinds.WarnAll(
				kinds.Warn(func(j, _ *batchv1.Job) []string { return warnOfMany(&j.Spec, "spec") }),
				core.TemplateWarnings(func(j *batchv1.Job) *corev1.PodTemplateSpec { return &j.Spec.Template }, "spec", "template")))),
			Generation: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(jobTexts(), "Name", "Status", "Completions", "Duration", "Age",
				"Containers|wide", "Images|wide", "Selector|wide"),
			Row: kinds.Row(jobRow),
		},
		FieldLabels:  []string{"status.successful"},
		FieldRefusal: "field label %q not supported for Job",
		Fields: kinds.Fields(func(j *batchv1.Job) fields.Set {
			return fields.Set{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
		}),
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *batchv1.Job) { next.Status = body.Status }, validateJobStatusUpdate),
		},
	}
}

func defaultJob(j *batchv1.Job) {
	defaultJobSpec(&j.Spec)
	// Only a Job, not the template in a CronJob, gets the following.
	spec := &j.Spec
	if spec.Completions == nil && spec.Parallelism == nil {
		orDefault(&spec.Completions, 1)
	}
	orDefault(&spec.Parallelism, 1)
	backoff := int32(6)
	if spec.BackoffLimitPerIndex != nil {
		backoff = math.MaxInt32
	}
	orDefault(&spec.BackoffLimit, backoff)
	if len(j.Labels) == 0 {
		j.Labels = maps.Clone(spec.Template.Labels)
	}
	orDefault(&spec.CompletionMode, batchv1.NonIndexedCompletion)
	orDefault(&spec.Suspend, false)
	replacement := batchv1.TerminatingOrFailed
	if spec.PodFailurePolicy != nil {
		replacement = batchv1.Failed
	}
	orDefault(&spec.PodReplacementPolicy, replacement)
	orDefault(&spec.ManualSelector, false)
}

func defaultJobSpec(spec *batchv1.JobSpec) {
	core.DefaultPodTemplate(&spec.Template)
	if spec.PodFailurePolicy == nil {
		return
	}
	for i := range spec.PodFailurePolicy.Rules {
		patterns := spec.PodFailurePolicy.Rules[i].OnPodConditions
		for j := range patterns {
			if patterns[j].Status == "" {
				patterns[j].Status = corev1.ConditionTrue
			}
		}
	}
}

// prepareJob makes the selector, unless the user takes care of it: the job's
// uid, which no other object shares.
func prepareJob(j *batchv1.Job) {
	j.Status = batchv1.JobStatus{}
	kinds.FirstGeneration(j)
	core.DropUnservedTemplate(&j.Spec.Template, nil)
	j.Spec.Scheduling = nil // jobs are not placed as groups, as with upstream's default gates
	if kinds.Deref(j.Spec.ManualSelector) {
		return
	}
	template := map[string]string{
		legacyJobName:              j.Name,
		batchv1.JobNameLabel:       j.Name,
		legacyControllerUID:        string(j.UID),
		batchv1.ControllerUidLabel: string(j.UID),
	}
	labels, given := map[string]string{}, j.Spec.Template.Labels
	for key, value := range template {
		labels[key] = value
	}
	// What the user wrote stays; validation refuses it if it is wrong.
	for key, value := range j.Spec.Template.Labels {
		labels[key] = value
	}
	j.Spec.Template.Labels = labels
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
	// A job without labels has its pods', also if it got those that the user gave
	// the pods by default.
	if len(j.Labels) == 0 || maps.Equal(j.Labels, given) {
		j.Labels = maps.Clone(labels)
	}
}

func prepareJobUpdate(j, old *batchv1.Job) {
	j.Status = old.Status
	core.DropUnservedTemplate(&j.Spec.Template, &old.Spec.Template)
	if old.Spec.Scheduling == nil {
		j.Spec.Scheduling = nil
	}
	kinds.NextGeneration(j, old, !kinds.Same(j.Spec, old.Spec))
}

func jobRow(j *batchv1.Job, now time.Time) []any {
	names, images := kinds.ContainerCells(j.Spec.Template.Spec.Containers)
	took := ""
	switch start, end := j.Status.StartTime, j.Status.CompletionTime; {
	case start == nil:
	case end == nil:
		took = duration.HumanDuration(now.Sub(start.Time))
	default:
		took = duration.HumanDuration(end.Sub(start.Time))
	}
	return []any{j.Name, jobStatus(j), completions(j), took, kinds.Created(j, now), names, images,
		metav1.FormatLabelSelector(j.Spec.Selector)}
}

func completions(j *batchv1.Job) string {
	if j.Spec.Completions != nil {
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	}
	if parallel := kinds.Deref(j.Spec.Parallelism); parallel > 1 {
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, parallel)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func jobStatus(j *batchv1.Job) string {
	switch {
	case isTrue(j, batchv1.JobComplete):
		return "Complete"
	case isTrue(j, batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case isTrue(j, batchv1.JobSuspended):
		return "Suspended"
	case isTrue(j, batchv1.JobFailureTarget):
		return "FailureTarget"
	case isTrue(j, batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func isTrue(j *batchv1.Job, kind batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == kind {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
