package batch

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// CronJob is the kind that starts jobs by the clock.
func CronJob() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("CronJob"),
		Resource:   "cronjobs",
		Singular:   "cronjob",
		Short:      []string{"cj"},
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "cronjobs",
		New:        func() kinds.Object { return &batchv1.CronJob{} },
		NewList:    func() runtime.Object { return &batchv1.CronJobList{} },
		Strategy: kinds.Strategy{
			Ratchet:        core.TemplateRatchet("spec.jobTemplate.spec.template"),
			Default:        kinds.Each(defaultCronJob),
			PrepareCreate:  kinds.Each(prepareCronJob),
			PrepareUpdate:  kinds.Pair(prepareCronJobUpdate),
			Validate:       kinds.Check(validateCronJob),
			ValidateUpdate: kinds.CheckUpdate(validateCronJobUpdate),
			Warnings: kinds.WarnAll(kinds.WarnOfName, kinds.WarnWhenChanged(kinds.WarnAll(
				kinds.Warn(func(c, _ *batchv1.CronJob) []string {
					return warnOfMany(&c.Spec.JobTemplate.Spec, "spec.jobTemplate.spec")
				}),
				core.TemplateWarnings(func(c *batchv1.CronJob) *corev1.PodTemplateSpec {
					return &c.Spec.JobTemplate.Spec.Template
				}, "spec", "jobTemplate", "spec", "template"))), kinds.Warn(warnOfZone)),
			Generation: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(cronJobTexts(), "Name", "Schedule", "Timezone", "Suspend|boolean", "Active|integer",
				"Last Schedule", "Age", "Containers|wide", "Images|wide", "Selector|wide"),
			Row: kinds.Row(cronJobRow),
		},
		Subresources: []kinds.Subresource{
			kinds.Status(func(next, body *batchv1.CronJob) { next.Status = body.Status }),
		},
	}
}

func defaultCronJob(c *batchv1.CronJob) {
	defaultJobSpec(&c.Spec.JobTemplate.Spec)
	if c.Spec.ConcurrencyPolicy == "" {
		c.Spec.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	orDefault(&c.Spec.Suspend, false)
	orDefault(&c.Spec.SuccessfulJobsHistoryLimit, 3)
	orDefault(&c.Spec.FailedJobsHistoryLimit, 1)
}

func prepareCronJob(c *batchv1.CronJob) {
	c.Status = batchv1.CronJobStatus{}
	kinds.FirstGeneration(c)
	core.DropUnservedTemplate(&c.Spec.JobTemplate.Spec.Template, nil)
	c.Spec.JobTemplate.Spec.Scheduling = nil // jobs are not placed as groups, as with upstream's default gates
}

func prepareCronJobUpdate(c, old *batchv1.CronJob) {
	c.Status = old.Status
	core.DropUnservedTemplate(&c.Spec.JobTemplate.Spec.Template, &old.Spec.JobTemplate.Spec.Template)
	if old.Spec.JobTemplate.Spec.Scheduling == nil {
		c.Spec.JobTemplate.Spec.Scheduling = nil
	}
	kinds.NextGeneration(c, old, !kinds.Same(c.Spec, old.Spec))
}

func cronJobRow(c *batchv1.CronJob, now time.Time) []any {
	zone, last := kinds.None, kinds.None
	if c.Spec.TimeZone != nil {
		zone = *c.Spec.TimeZone
	}
	if c.Status.LastScheduleTime != nil {
		last = kinds.Age(*c.Status.LastScheduleTime, now)
	}
	suspend := kinds.Unset
	if c.Spec.Suspend != nil {
		suspend = "False"
		if *c.Spec.Suspend {
			suspend = "True"
		}
	}
	names, images := kinds.ContainerCells(c.Spec.JobTemplate.Spec.Template.Spec.Containers)
	return []any{c.Name, c.Spec.Schedule, zone, suspend, int64(len(c.Status.Active)), last, kinds.Created(c, now),
		names, images, metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector)}
}
