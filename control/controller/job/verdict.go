package job

import (
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// judge decides whether the job is at its end. What has been announced stands;
// then failures come before success.
func (r *round) judge() {
	if c := r.condition(batchv1.JobSuccessCriteriaMet); c != nil {
		r.verdict = c
		return
	}
	if c := r.condition(batchv1.JobFailureTarget); c != nil {
		r.verdict = r.newCondition(batchv1.JobFailed, c.Reason, c.Message)
		return
	}
	reason, message := r.failure()
	if reason != "" {
		r.verdict = r.newCondition(batchv1.JobFailureTarget, reason, message)
		return
	}
	if message, ok := met(r.job.Spec.SuccessPolicy, r.completions, r.done); ok {
		r.verdict = r.newCondition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, message)
	}
}

// failure is why the job fails, "" if it does not.
func (r *round) failure() (reason, message string) {
	spec := &r.job.Spec
	if spec.PodFailurePolicy != nil {
		for _, pod := range r.pods {
			if j := judge(spec.PodFailurePolicy, pod); r.lostPod(pod) && j.message != "" {
				return batchv1.JobReasonPodFailurePolicy, j.message
			}
		}
	}
	switch {
	case r.failed > *spec.BackoffLimit || r.restartedTooOften():
		return batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit"
	case spec.ActiveDeadlineSeconds != nil && r.untilDeadline() <= 0:
		return batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"
	case !r.perIndex:
		return "", ""
	case spec.MaxFailedIndexes != nil && r.lost.total() > int(*spec.MaxFailedIndexes):
		return batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes"
	case r.lost.total() > 0 && r.lost.total()+r.done.total() >= r.completions:
		return batchv1.JobReasonFailedIndexes, "Job has failed indexes"
	}
	return "", ""
}

// restartedTooOften counts restarts in place, of pods that do not fail by them.
func (r *round) restartedTooOften() bool {
	if r.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	var restarts int32
	for _, pod := range r.pods {
		if pod.Status.Phase != corev1.PodRunning && pod.Status.Phase != corev1.PodPending {
			continue
		}
		for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			restarts += c.RestartCount
		}
	}
	return restarts > 0 && restarts >= *r.job.Spec.BackoffLimit
}

// untilDeadline is how long the job may stay active; of jobs that have a deadline.
func (r *round) untilDeadline() time.Duration {
	limit := time.Duration(*r.job.Spec.ActiveDeadlineSeconds) * time.Second
	if suspended(r.job) || r.job.Status.StartTime == nil {
		return limit + time.Second
	}
	return limit - r.now.Sub(r.job.Status.StartTime.Time)
}

func (r *round) condition(kind batchv1.JobConditionType) *batchv1.JobCondition {
	return findTrue(&r.job.Status, kind)
}

func (r *round) newCondition(kind batchv1.JobConditionType, reason, message string) *batchv1.JobCondition {
	now := metav1.NewTime(r.now)
	return &batchv1.JobCondition{
		Type: kind, Status: corev1.ConditionTrue, LastProbeTime: now, LastTransitionTime: now, Reason: reason, Message: message,
	}
}

func findTrue(s *batchv1.JobStatus, kind batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range s.Conditions {
		if c := s.Conditions[i]; c.Type == kind && c.Status == corev1.ConditionTrue {
			return &c
		}
	}
	return nil
}
