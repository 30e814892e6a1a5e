package cronjob

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
)

// plan is what to do for one cron job.
type plan struct {
	news []news
	// old jobs are beyond the history's limits.
	old []*batchv1.Job
	// replace are active jobs that make room for the next.
	replace []*batchv1.Job
	// start is the time for which a job is to be made; zero: none.
	start  time.Time
	status batchv1.CronJobStatus // before what is listed above is done
	again  time.Duration
}

// news is something to tell about the cron job.
type news struct{ eventtype, reason, message string }

func (p *plan) tell(eventtype, reason, format string, args ...any) {
	p.news = append(p.news, news{eventtype, reason, fmt.Sprintf(format, args...)})
}

// decide is the whole of the controller's judgement. jobs are the cron job's own.
func decide(cj *batchv1.CronJob, jobs []*batchv1.Job, now time.Time) plan {
	p := plan{status: *cj.Status.DeepCopy()}
	p.old = append(beyond(jobs, batchv1.JobComplete, cj.Spec.SuccessfulJobsHistoryLimit),
		beyond(jobs, batchv1.JobFailed, cj.Spec.FailedJobsHistoryLimit)...)
	p.follow(cj, jobs)
	if cj.DeletionTimestamp != nil {
		return p
	}
	s, err := parse(&cj.Spec)
	var zone *zoneError
	switch {
	case errors.As(err, &zone):
		p.tell(corev1.EventTypeWarning, "UnknownTimeZone", "%s", zone)
		return p
	case cj.Spec.Suspend != nil && *cj.Spec.Suspend:
		return p
	}
	if strings.Contains(cj.Spec.Schedule, "TZ") {
		p.tell(corev1.EventTypeWarning, "UnsupportedSchedule", "CRON_TZ or TZ used in schedule %q is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", cj.Spec.Schedule)
	}
	if err != nil {
		p.tell(corev1.EventTypeWarning, "UnparseableSchedule", "unparseable schedule: %q : %s", cj.Spec.Schedule, err)
		return p
	}
	p.keep(cj, s, jobs, now)
	return p
}

// follow brings the list of active jobs up to date.
func (p *plan) follow(cj *batchv1.CronJob, jobs []*batchv1.Job) {
	alive := map[types.UID]bool{}
	for _, j := range jobs {
		alive[j.UID] = true
		listed := slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID })
		end := endOf(j)
		switch {
		case end == "" && !listed && ours(cj, j): // made, and then the status was not written
			p.status.Active = append(p.status.Active, reference(j))
		case end == "" && !listed:
			p.tell(corev1.EventTypeWarning, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name)
		case end != "" && listed:
			p.drop(j.UID)
			p.tell(corev1.EventTypeNormal, "SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, end)
		}
		done := j.Status.CompletionTime
		if end == batchv1.JobComplete && done != nil && (p.status.LastSuccessfulTime == nil || done.After(p.status.LastSuccessfulTime.Time)) {
			p.status.LastSuccessfulTime = done
		}
	}
	for _, r := range slices.Clone(p.status.Active) {
		if !alive[r.UID] {
			p.drop(r.UID)
			p.tell(corev1.EventTypeNormal, "MissingJob", "Active job went missing: %v", r.Name)
		}
	}
}

// ours says whether the schedule made j: not a person, who may give a job the
// same owner (kubectl create job --from).
func ours(cj *batchv1.CronJob, j *batchv1.Job) bool {
	at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	return err == nil && j.Name == jobName(cj, at)
}

func (p *plan) drop(uid types.UID) {
	p.status.Active = slices.DeleteFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == uid })
}

// keep keeps the schedule: it starts the last job that is due, at most one.
func (p *plan) keep(cj *batchv1.CronJob, s schedule, jobs []*batchv1.Job, now time.Time) {
	p.again = s.wait(cj, now)
	at, many, err := s.due(cj, now)
	if err != nil {
		p.tell(corev1.EventTypeWarning, "InvalidSchedule", "invalid schedule: %s : %s", cj.Spec.Schedule, err)
		p.again = 0
		return
	}
	if at.IsZero() {
		return
	}
	if many {
		p.tell(corev1.EventTypeWarning, "TooManyMissedTimes",
			"too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew")
	}
	if d := cj.Spec.StartingDeadlineSeconds; d != nil && at.Add(time.Duration(*d)*time.Second).Before(now) {
		p.tell(corev1.EventTypeWarning, "MissSchedule", "Missed scheduled time to start a job: %s", at.UTC().Format(time.RFC1123Z))
		return
	}
	name := jobName(cj, at)
	started := slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.Name == name })
	if started || cj.Status.LastScheduleTime.Equal(&metav1.Time{Time: at}) {
		if started && (p.status.LastScheduleTime == nil || p.status.LastScheduleTime.Time.Before(at)) {
			p.status.LastScheduleTime = &metav1.Time{Time: at}
		}
		return
	}
	switch {
	case cj.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent && len(p.status.Active) > 0:
		p.tell(corev1.EventTypeNormal, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
		return
	case cj.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent:
		for _, j := range jobs {
			if slices.ContainsFunc(p.status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID }) {
				p.replace = append(p.replace, j)
			}
		}
	}
	p.start = at
}

// beyond are the jobs with an end that are more than limit, oldest first.
func beyond(jobs []*batchv1.Job, end batchv1.JobConditionType, limit *int32) []*batchv1.Job {
	if limit == nil {
		return nil
	}
	all := slices.DeleteFunc(slices.Clone(jobs), func(j *batchv1.Job) bool { return endOf(j) != end || j.DeletionTimestamp != nil })
	slices.SortFunc(all, func(a, b *batchv1.Job) int {
		switch x, y := a.Status.StartTime, b.Status.StartTime; {
		case x == nil && y == nil:
			return cmp.Compare(a.Name, b.Name)
		case x == nil:
			return 1
		case y == nil:
			return -1
		default:
			return cmp.Or(x.Compare(y.Time), cmp.Compare(a.Name, b.Name))
		}
	})
	return all[:max(0, len(all)-int(*limit))]
}

// endOf is how a job ended, "" when it has not.
func endOf(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

// jobName is the same for one time, whoever asks, so that no job is made twice.
func jobName(cj *batchv1.CronJob, at time.Time) string {
	return fmt.Sprintf("%s-%d", cj.Name, at.Unix()/60)
}

// jobFor is the job for a time.
func jobFor(cj *batchv1.CronJob, at time.Time) *batchv1.Job {
	zone := time.UTC
	if cj.Spec.TimeZone != nil {
		if z, err := time.LoadLocation(*cj.Spec.TimeZone); err == nil {
			zone = z
		}
	}
	template := cj.Spec.JobTemplate.DeepCopy()
	annotations := maps.Clone(template.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = at.In(zone).Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       cj.Namespace,
			Name:            jobName(cj, at),
			Labels:          template.Labels,
			Annotations:     annotations,
			OwnerReferences: []metav1.OwnerReference{client.CronJobs.Owner(cj)},
		},
		Spec: template.Spec,
	}
}

func reference(j *batchv1.Job) corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion: batchv1.SchemeGroupVersion.String(), Kind: client.Jobs.Kind,
		Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion,
	}
}
