package measure

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
)

// What one look at a job came to; upstream's words.
const (
	Reconciling = "reconciling"
	Tracking    = "tracking"
	PodsCreated = "pods_created"
	PodsDeleted = "pods_deleted"
)

func mode(job *batchv1.Job) string {
	if m := job.Spec.CompletionMode; m != nil {
		return string(*m)
	}
	return string(batchv1.NonIndexedCompletion)
}

// JobSynced notes a look at a job.
func (m *Metrics) JobSynced(job *batchv1.Job, action string, err error, began time.Time) {
	if m == nil {
		return
	}
	result := "success"
	if err != nil {
		result = "error"
	}
	m.jobSyncs.WithLabelValues(mode(job), result, action).Inc()
	m.jobSeconds.WithLabelValues(mode(job), result, action).Observe(since(began))
}

// JobFinished notes the end of a job, as its last condition tells it.
func (m *Metrics) JobFinished(job *batchv1.Job, end *batchv1.JobCondition) {
	if m == nil {
		return
	}
	if end.Type == batchv1.JobFailed {
		m.jobsFinished.WithLabelValues(mode(job), "failed", end.Reason).Inc()
		return
	}
	reason := end.Reason
	if reason != batchv1.JobReasonSuccessPolicy {
		reason = batchv1.JobReasonCompletionsReached
	}
	m.jobsFinished.WithLabelValues(mode(job), "succeeded", reason).Inc()
}

// JobPods notes that pods of a job have been counted: by how many its status shows
// more than it was.
func (m *Metrics) JobPods(job *batchv1.Job, was *batchv1.JobStatus) {
	if m == nil {
		return
	}
	if n := job.Status.Succeeded - was.Succeeded; n > 0 {
		m.jobPods.WithLabelValues(mode(job), "succeeded").Add(float64(n))
	}
	if n := job.Status.Failed - was.Failed; n > 0 {
		m.jobPods.WithLabelValues(mode(job), "failed").Add(float64(n))
	}
}

// PodFailures notes how many failed pods rules were applied to, by their actions.
func (m *Metrics) PodFailures(byAction map[batchv1.PodFailurePolicyAction]int) {
	if m == nil {
		return
	}
	for action, n := range byAction {
		m.jobFailures.WithLabelValues(string(action)).Add(float64(n))
	}
}

// PodTracked notes that a pod that has ended is held for the books of its job, or no
// longer is.
func (m *Metrics) PodTracked(held bool) {
	if m == nil {
		return
	}
	event := "delete"
	if held {
		event = "add"
	}
	m.jobTracking.WithLabelValues(event).Inc()
}

// CronJobStarted notes how late a cron job's job was made.
func (m *Metrics) CronJobStarted(late time.Duration) {
	if m != nil {
		m.cronSkew.Observe(late.Seconds())
	}
}
