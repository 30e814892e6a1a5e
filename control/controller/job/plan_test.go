package job

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
)

// A status may be written twice in a round. What the server keeps of the first is
// whole seconds, and a beginning never changes.
func TestBeginsAtWholeSeconds(t *testing.T) {
	one := int32(1)
	for _, job := range []*batchv1.Job{
		{Spec: batchv1.JobSpec{Parallelism: &one, Completions: &one, BackoffLimit: &one}},
		{Spec: batchv1.JobSpec{Parallelism: &one, Completions: &one, BackoffLimit: &one}, Status: batchv1.JobStatus{
			Conditions: []batchv1.JobCondition{{Type: batchv1.JobSuspended, Status: "True"}}}},
	} {
		r := begin(job, nil, streak{}, time.Unix(1_700_000_000, 123_456_789))
		r.noteSuspension()
		if got := r.job.Status.StartTime; got == nil || got.UnixNano() != 1_700_000_000_000_000_000 {
			t.Errorf("job with %v begins at %v", job.Status.Conditions, got)
		}
	}
}
