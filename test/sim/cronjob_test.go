package sim_test

import (
	"fmt"
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

func (p *plane) makeCronJob(edit func(*batchv1.CronJobSpec)) {
	p.Helper()
	cj := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"},
		Spec: batchv1.CronJobSpec{
			Schedule: "*/10 * * * *",
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}},
			}}}},
		},
	}
	edit(&cj.Spec)
	if _, err := client.CronJobs.Create(p.Context(), p.admin, cj); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

// expectCronJob compares the jobs by the minute that they were made for and their
// end, and the status.
func (p *plane) expectCronJob(want string) {
	p.Helper()
	p.settle()
	jobs, _, err := client.Jobs.List(p.Context(), p.admin, "default", metav1.ListOptions{})
	if err != nil {
		p.Fatal(err)
	}
	var words []string
	for _, j := range jobs {
		at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
		if err != nil || j.Name != fmt.Sprintf("c-%d", at.Unix()/60) {
			p.Errorf("job %q for %v: %v", j.Name, at, err)
		}
		text := at.Format("15:04")
		for _, c := range j.Status.Conditions {
			if c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed {
				text += string(c.Type)
			}
		}
		words = append(words, text)
	}
	cj, err := client.CronJobs.Get(p.Context(), p.admin, "default", "c")
	if err != nil {
		p.Fatal(err)
	}
	got := fmt.Sprintf("%s; active %d", strings.Join(words, " "), len(cj.Status.Active))
	if t := cj.Status.LastScheduleTime; t != nil {
		got += " last " + t.UTC().Format("15:04")
	}
	if got != want {
		p.Errorf("\n got %s\nwant %s", got, want)
	}
}

// endJobs lets all pods exit with a code.
func (p *plane) endJobs(code int32) {
	p.Helper()
	for _, pod := range p.list("default", "") {
		if pod.Status.Phase != corev1.PodPending {
			continue
		}
		pod = pod.DeepCopy()
		pod.Status.Phase = corev1.PodSucceeded
		if code != 0 {
			pod.Status.Phase = corev1.PodFailed
		}
		if _, err := client.Pods.UpdateStatus(p.Context(), p.admin, pod); err != nil {
			p.Fatal(err)
		}
	}
	p.settle()
}

func TestCronJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.makeCronJob(func(s *batchv1.CronJobSpec) {
			s.SuccessfulJobsHistoryLimit = ptr(int32(1))
			s.TimeZone = ptr("UTC")
		})
		p.expectCronJob("; active 0")
		time.Sleep(10 * time.Minute)
		p.expectCronJob("00:10; active 1 last 00:10")
		time.Sleep(10 * time.Minute) // the first is still running: they may run together
		p.expectCronJob("00:10 00:20; active 2 last 00:20")
		p.endJobs(0)
		p.expectCronJob("00:20Complete; active 0 last 00:20")
		// Suspended over many times: one is made up for.
		p.suspendCron(true)
		time.Sleep(time.Hour)
		p.expectCronJob("00:20Complete; active 0 last 00:20")
		p.suspendCron(false)
		p.expectCronJob("00:20Complete 01:20; active 1 last 01:20")
	})
}

func (p *plane) suspendCron(yes bool) {
	p.Helper()
	cj, err := client.CronJobs.Get(p.Context(), p.admin, "default", "c")
	if err != nil {
		p.Fatal(err)
	}
	cj = cj.DeepCopy()
	cj.Spec.Suspend = &yes
	if _, err := client.CronJobs.Update(p.Context(), p.admin, cj); err != nil {
		p.Fatal(err)
	}
	p.settle()
}

func TestCronJobConcurrency(t *testing.T) {
	for policy, want := range map[batchv1.ConcurrencyPolicy]string{
		batchv1.ForbidConcurrent:  "00:10; active 1 last 00:10",
		batchv1.ReplaceConcurrent: "00:20; active 1 last 00:20",
	} {
		synctest.Test(t, func(t *testing.T) {
			p := start(t)
			p.makeCronJob(func(s *batchv1.CronJobSpec) { s.ConcurrencyPolicy = policy })
			time.Sleep(21 * time.Minute)
			p.expectCronJob(want)
		})
	}
}

// A finished job lives for its time and takes its pods along.
func TestTTLAfterFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.job(batchv1.JobSpec{TTLSecondsAfterFinished: ptr(int32(60))})
		time.Sleep(time.Hour)
		p.end(1, -1, 0)
		time.Sleep(50 * time.Second)
		if p.getJob().Status.Succeeded != 1 {
			t.Error("the job has not succeeded")
		}
		time.Sleep(20 * time.Second)
		p.settle()
		if _, err := client.Jobs.Get(t.Context(), p.admin, "default", "j"); !apierrors.IsNotFound(err) {
			t.Errorf("job after its time: %v", err)
		}
		if pods := p.list("default", ""); len(pods) > 0 {
			t.Errorf("%d pods are left", len(pods))
		}
	})
}

// A schedule that is changed counts from now on: a time of it that has passed today is
// not made up for.
func TestCronJobIsPutForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		p.makeCronJob(func(s *batchv1.CronJobSpec) { s.Schedule, s.TimeZone = "0 20 * * *", ptr("UTC") })
		change := func(schedule string) {
			t.Helper()
			cj, err := client.CronJobs.Get(t.Context(), p.admin, "default", "c")
			if err != nil {
				t.Fatal(err)
			}
			cj = cj.DeepCopy()
			cj.Spec.Schedule = schedule
			if _, err := client.CronJobs.Update(t.Context(), p.admin, cj); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(12 * time.Hour)
		change("0 8 * * *")
		p.expectCronJob("; active 0")
		change("30 12 * * *")
		p.expectCronJob("; active 0")
		time.Sleep(35 * time.Minute)
		p.expectCronJob("12:30; active 1 last 12:30")
	})
}
