package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// job makes a job with the given spec, completed by what all jobs need.
func (p *plane) job(spec batchv1.JobSpec) {
	p.Helper()
	spec.Template.Spec = corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}
	made := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "j"}, Spec: spec}
	if _, err := client.Jobs.Create(p.Context(), p.admin, made); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func (p *plane) getJob() *batchv1.Job {
	p.Helper()
	j, err := client.Jobs.Get(p.Context(), p.admin, "default", "j")
	if err != nil {
		p.Fatal(err)
	}
	return j
}

// expectJob compares the counts and conditions of the job, and its active pods.
func (p *plane) expectJob(want string) {
	p.Helper()
	p.settle()
	s := p.getJob().Status
	var conditions []string
	for _, c := range s.Conditions {
		conditions = append(conditions, fmt.Sprintf("%s=%s(%s)", c.Type, c.Status, c.Reason))
	}
	got := fmt.Sprintf("active %d terminating %d succeeded %d failed %d", s.Active, *s.Terminating, s.Succeeded, s.Failed)
	if s.CompletedIndexes != "" {
		got += " completed " + s.CompletedIndexes
	}
	if s.FailedIndexes != nil {
		got += fmt.Sprintf(" lost %q", *s.FailedIndexes)
	}
	if u := s.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 {
		got += fmt.Sprintf(" uncounted %v", u)
	}
	if got = strings.TrimSpace(got + " " + strings.Join(conditions, " ")); got != want {
		p.Errorf("\n got %s\nwant %s", got, want)
	}
	active := 0
	for _, pod := range p.list("default", "job-name=j") {
		if pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			active++
		}
	}
	if int32(active) != s.Active {
		p.Errorf("%d active pods, status says %d", active, s.Active)
	}
}

// end lets up to n active pods of the job exit with a code; of an index if not -1.
func (p *plane) end(n, index int, code int32) {
	p.Helper()
	for _, pod := range p.list("default", "job-name=j") {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		wrong := index >= 0 && pod.Annotations[batchv1.JobCompletionIndexAnnotation] != fmt.Sprint(index)
		if n == 0 || ended || wrong || pod.DeletionTimestamp != nil {
			continue
		}
		n--
		pod = pod.DeepCopy()
		pod.Status.Phase = corev1.PodSucceeded
		if code != 0 {
			pod.Status.Phase = corev1.PodFailed
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now()},
		}}}
		if _, err := client.Pods.UpdateStatus(p.Context(), p.admin, pod); err != nil {
			p.Fatal(err)
		}
	}
	if n > 0 {
		p.Errorf("%d pods too few to end", n)
	}
	p.settle()
}

func ptr[T any](v T) *T { return &v }

func TestJobCompletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.job(batchv1.JobSpec{Completions: ptr(int32(4)), Parallelism: ptr(int32(2))})
		p.expectJob("active 2 terminating 0 succeeded 0 failed 0")
		p.end(2, -1, 0)
		p.expectJob("active 2 terminating 0 succeeded 2 failed 0")
		p.end(1, -1, 1)
		p.expectJob("active 1 terminating 0 succeeded 2 failed 1") // the replacement waits ten seconds
		time.Sleep(10 * time.Second)
		p.expectJob("active 2 terminating 0 succeeded 2 failed 1")
		p.end(2, -1, 0)
		p.expectJob("active 0 terminating 0 succeeded 4 failed 1 SuccessCriteriaMet=True(CompletionsReached) Complete=True(CompletionsReached)")
		for _, pod := range p.list("default", "job-name=j") {
			if len(pod.Finalizers) > 0 {
				t.Errorf("pod %s keeps %v", pod.Name, pod.Finalizers)
			}
		}
		if j := p.getJob(); j.Status.CompletionTime == nil || j.Status.StartTime == nil {
			t.Errorf("times %v, %v", j.Status.StartTime, j.Status.CompletionTime)
		}
	})
}

func TestJobFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.job(batchv1.JobSpec{Completions: ptr(int32(3)), Parallelism: ptr(int32(3)), BackoffLimit: ptr(int32(0))})
		p.end(1, -1, 1)
		p.expectJob("active 0 terminating 0 succeeded 0 failed 3 FailureTarget=True(BackoffLimitExceeded) Failed=True(BackoffLimitExceeded)")
	})
}

func TestJobDeadlineAndSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.job(batchv1.JobSpec{Parallelism: ptr(int32(2)), ActiveDeadlineSeconds: ptr(int64(60))})
		time.Sleep(40 * time.Second)
		p.suspend(true)
		p.expectJob("active 0 terminating 0 succeeded 0 failed 0 Suspended=True(JobSuspended)")
		if j := p.getJob(); j.Status.StartTime != nil {
			t.Errorf("a suspended job started at %v", j.Status.StartTime)
		}
		p.suspend(false)
		p.expectJob("active 2 terminating 0 succeeded 0 failed 0 Suspended=False(JobResumed)")
		time.Sleep(40 * time.Second)
		p.expectJob("active 2 terminating 0 succeeded 0 failed 0 Suspended=False(JobResumed)")
		time.Sleep(15 * time.Second)
		p.expectJob("active 0 terminating 0 succeeded 0 failed 2 Suspended=False(JobResumed) FailureTarget=True(DeadlineExceeded) Failed=True(DeadlineExceeded)")
	})
}

func (p *plane) suspend(yes bool) {
	p.Helper()
	j := p.getJob().DeepCopy()
	j.Spec.Suspend = &yes
	if _, err := client.Jobs.Update(p.Context(), p.admin, j); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func TestIndexedJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.job(batchv1.JobSpec{
			CompletionMode: ptr(batchv1.IndexedCompletion), Completions: ptr(int32(4)), Parallelism: ptr(int32(4)),
			BackoffLimitPerIndex: ptr(int32(1)), MaxFailedIndexes: ptr(int32(2)),
		})
		p.end(1, 1, 1)
		p.expectJob(`active 3 terminating 0 succeeded 0 failed 0 lost ""`) // the failed one is held
		p.end(1, 0, 0)
		time.Sleep(10 * time.Second)
		p.expectJob(`active 3 terminating 0 succeeded 1 failed 1 completed 0 lost ""`)
		p.end(1, 1, 1)
		p.expectJob(`active 2 terminating 0 succeeded 1 failed 2 completed 0 lost "1"`)
		pods := p.list("default", "job-name=j,batch.kubernetes.io/job-completion-index=2")
		if len(pods) != 1 || pods[0].Spec.Hostname != "j-2" || !strings.HasPrefix(pods[0].Name, "j-2-") ||
			!slices.ContainsFunc(pods[0].Spec.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == "JOB_COMPLETION_INDEX" }) {
			t.Errorf("pods of index 2: %v", pods)
		}
		p.end(1, 2, 0)
		p.end(1, 3, 0)
		p.expectJob(`active 0 terminating 0 succeeded 3 failed 2 completed 0,2,3 lost "1" FailureTarget=True(FailedIndexes) Failed=True(FailedIndexes)`)
	})
}

func TestJobPolicies(t *testing.T) {
	rule := func(action batchv1.PodFailurePolicyAction, code int32) batchv1.PodFailurePolicyRule {
		return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
			Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{code},
		}}
	}
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.job(batchv1.JobSpec{
			CompletionMode: ptr(batchv1.IndexedCompletion), Completions: ptr(int32(3)), Parallelism: ptr(int32(3)),
			BackoffLimit: ptr(int32(0)),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
				rule(batchv1.PodFailurePolicyActionIgnore, 3), rule(batchv1.PodFailurePolicyActionFailJob, 42),
			}},
			SuccessPolicy: &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr("0-1"), SucceededCount: ptr(int32(1))}}},
		})
		p.end(1, 0, 3)
		time.Sleep(10 * time.Second)
		p.expectJob("active 3 terminating 0 succeeded 0 failed 0")
		p.end(1, 1, 0)
		p.expectJob("active 0 terminating 0 succeeded 1 failed 0 completed 1 SuccessCriteriaMet=True(SuccessPolicy) Complete=True(SuccessPolicy)")
		p.deleteJob(metav1.DeletePropagationBackground)

		p.job(batchv1.JobSpec{
			Parallelism:      ptr(int32(2)),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{rule(batchv1.PodFailurePolicyActionFailJob, 42)}},
		})
		p.end(1, -1, 42)
		p.expectJob("active 0 terminating 0 succeeded 0 failed 2 FailureTarget=True(PodFailurePolicy) Failed=True(PodFailurePolicy)")
	})
}

// deleteJob deletes the job and expects that nothing of it stays, finalizers or
// not.
func (p *plane) deleteJob(policy metav1.DeletionPropagation) {
	p.Helper()
	if err := client.Jobs.Delete(p.Context(), p.admin, "default", "j", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
		p.Fatal(err)
	}
	p.settle()
	if _, err := client.Jobs.Get(p.Context(), p.admin, "default", "j"); !apierrors.IsNotFound(err) {
		p.Errorf("job: %v", err)
	}
	if pods := p.list("default", "job-name=j"); len(pods) > 0 {
		p.Errorf("%d pods are left, %v", len(pods), pods[0].ObjectMeta)
	}
}

// A running job that is deleted leaves no pod behind its finalizer.
func TestJobIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground} {
			p.job(batchv1.JobSpec{Parallelism: ptr(int32(2))})
			p.end(1, -1, 0)
			p.deleteJob(policy)
		}
	})
}

// A job that replaces pods when they have failed replaces one that was deleted before it
// had a node: nobody but the controllers can say that it has failed.
func TestJobReplacesWhatHadNoNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.job(batchv1.JobSpec{PodReplacementPolicy: ptr(batchv1.Failed), BackoffLimit: ptr(int32(3))})
		first := p.list("default", "")
		if len(first) != 1 || first[0].Spec.NodeName != "" {
			t.Fatalf("pods: %v", first)
		}
		if err := client.Pods.Delete(t.Context(), p.admin, "default", first[0].Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		p.settle()
		if now := p.list("default", ""); len(now) != 1 || now[0].UID == first[0].UID {
			t.Errorf("the pod has not been replaced: %v", now)
		}
		if j := p.getJob(); j.Status.Failed != 1 {
			t.Errorf("status: %+v", j.Status)
		}
	})
}
