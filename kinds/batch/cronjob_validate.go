package batch

import (
	"regexp"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// maxCronJobName leaves room for the eleven characters that a job's name adds.
const maxCronJobName = 52

// zonePart is one element of a time zone's name.
var zonePart = regexp.MustCompile(`^[A-Za-z0-9_+-]+$`)

func validateCronJob(c *batchv1.CronJob) field.ErrorList {
	var f kinds.Faults
	checkCronJob(&f, &c.Spec, nil)
	if len(c.Name) > maxCronJobName {
		f.Invalid(kinds.NewPath("metadata").Child("name"), c.Name, "must be no more than 52 characters")
	}
	return declaredCronJob(&c.Spec, nil).Behind(f.List())
}

func validateCronJobUpdate(c, old *batchv1.CronJob) field.ErrorList {
	var f kinds.Faults
	checkCronJob(&f, &c.Spec, &old.Spec)
	return declaredCronJob(&c.Spec, &old.Spec).Behind(f.List())
}

// warnOfZone warns, when a CronJob changes, of a zone that stands in the schedule.
func warnOfZone(c, old *batchv1.CronJob) []string {
	if old == nil || !strings.Contains(c.Spec.Schedule, "TZ") {
		return nil
	}
	return []string{"cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"}
}

// declaredCronJob are upstream's declared rules.
func declaredCronJob(spec, old *batchv1.CronJobSpec) *declared.Rules {
	r := declared.For(old)
	declared.Required(r, spec, old, kinds.NewPath("spec").Child("schedule"), func(s *batchv1.CronJobSpec) string { return s.Schedule })
	return r
}

func checkCronJob(f *kinds.Faults, spec, old *batchv1.CronJobSpec) {
	at := kinds.NewPath("spec")
	if f.NonEmpty(at.Child("schedule"), spec.Schedule) {
		checkSchedule(f, spec, old, at.Child("schedule"))
	}
	f.NonNegative(at.Child("startingDeadlineSeconds"), kinds.Deref(spec.StartingDeadlineSeconds))
	if spec.TimeZone != nil && (old == nil || !kinds.Same(old.TimeZone, spec.TimeZone)) {
		checkZone(f, *spec.TimeZone, at.Child("timeZone"))
	}
	kinds.RequiredListed(f, at.Child("concurrencyPolicy"), spec.ConcurrencyPolicy, batchv1.AllowConcurrent,
		batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)
	job, template := &spec.JobTemplate.Spec, at.Child("jobTemplate").Child("spec")
	f.Join(validateJobSpec(job, template))
	if job.Selector != nil {
		f.Invalid(template.Child("selector"), job.Selector, "`selector` will be auto-generated")
	}
	if kinds.Deref(job.ManualSelector) {
		f.Join(field.ErrorList{field.NotSupported(template.Child("manualSelector").Field(), job.ManualSelector, []string{"nil", "false"})})
	}
	f.NonNegative(at.Child("successfulJobsHistoryLimit"), int64(kinds.Deref(spec.SuccessfulJobsHistoryLimit)))
	f.NonNegative(at.Child("failedJobsHistoryLimit"), int64(kinds.Deref(spec.FailedJobsHistoryLimit)))
}

// checkSchedule: a zone inside the schedule is only kept where it was before.
func checkSchedule(f *kinds.Faults, spec, old *batchv1.CronJobSpec, at *kinds.Path) {
	zoned := strings.Contains(spec.Schedule, "TZ")
	kept := old != nil && strings.Contains(old.Schedule, "TZ")
	text := spec.Schedule
	if zoned {
		_, text, _ = strings.Cut(text, " ")
	}
	if _, err := ParseSchedule(text); err != nil {
		f.Invalid(at, spec.Schedule, err.Error())
	}
	switch {
	case zoned && kept && spec.TimeZone != nil:
		f.Invalid(at, spec.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule")
	case zoned && !kept:
		f.Invalid(at, spec.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
	}
}

// checkZone asks the zone database of the machine or of the program.
func checkZone(f *kinds.Faults, zone string, at *kinds.Path) {
	if zone == "" {
		f.Invalid(at, zone, "timeZone must be nil or non-empty string")
		return
	}
	for _, part := range strings.Split(zone, "/") {
		if strings.HasPrefix(part, "-") || !zonePart.MatchString(part) {
			f.Invalid(at, zone, "unknown time zone "+zone)
			return
		}
	}
	if strings.EqualFold(zone, "Local") {
		f.Invalid(at, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
	}
	if _, err := time.LoadLocation(zone); err != nil {
		f.Invalid(at, zone, err.Error())
	}
}
