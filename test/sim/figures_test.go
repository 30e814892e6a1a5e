package sim_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/apiserver"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/control/scheduler"
)

// figures is what a scrape shows of some collectors.
func figures(t *testing.T, all ...prometheus.Collector) []string {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(all...)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	return strings.Split(w.Body.String(), "\n")
}

// expectFigures: each line is among those of a scrape.
func expectFigures(t *testing.T, got []string, want ...string) {
	t.Helper()
	for _, line := range want {
		if slices.Contains(got, line) {
			continue
		}
		name, _, _ := strings.Cut(line, "{")
		name, _, _ = strings.Cut(name, " ")
		about := slices.DeleteFunc(slices.Clone(got), func(l string) bool {
			return !strings.HasPrefix(l, name) || strings.Contains(l, "_bucket")
		})
		t.Errorf("no line %s in\n%s", line, strings.Join(about, "\n"))
	}
}

// What the scheduler does is counted under upstream's names.
func TestSchedulerFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		m := scheduler.NewMetrics()
		p.metrics = m
		p.addNode("one")
		_, stop := p.schedule()
		defer stop()
		p.addPod("fits", "3", grace)
		p.addPod("waits", "2", grace)
		p.addPod("gated", "1", func(pod *corev1.Pod) { pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "a.b/c"}} })
		p.settle()
		const profile = `profile="default-scheduler"`
		expectFigures(t, figures(t, m),
			`scheduler_schedule_attempts_total{`+profile+`,result="scheduled"} 1`,
			`scheduler_schedule_attempts_total{`+profile+`,result="unschedulable"} 1`,
			`scheduler_scheduling_attempt_duration_seconds_count{`+profile+`,result="scheduled"} 1`,
			`scheduler_scheduling_algorithm_duration_seconds_count 2`,
			`scheduler_pod_scheduling_attempts_count 1`,
			`scheduler_pod_scheduling_sli_duration_seconds_count{attempts="1"} 1`,
			`scheduler_pending_pods{queue="active"} 0`,
			`scheduler_pending_pods{queue="backoff"} 0`,
			`scheduler_pending_pods{queue="gated"} 1`,
			`scheduler_pending_pods{queue="unschedulable"} 1`,
			`scheduler_unschedulable_pods{plugin="NodeResourcesFit",`+profile+`} 1`,
			`scheduler_queue_incoming_pods_total{event="UnscheduledPodAdd",queue="active"} 2`,
			`scheduler_queue_incoming_pods_total{event="UnscheduledPodAdd",queue="gated"} 1`,
			`scheduler_queue_incoming_pods_total{event="ScheduleAttemptFailure",queue="unschedulable"} 1`,
			`scheduler_framework_extension_point_duration_seconds_count{extension_point="PreFilter",`+profile+`,status="Success"} 2`,
			`scheduler_framework_extension_point_duration_seconds_count{extension_point="Filter",`+profile+`,status="Success"} 1`,
			`scheduler_framework_extension_point_duration_seconds_count{extension_point="Filter",`+profile+`,status="Unschedulable"} 1`,
			`scheduler_framework_extension_point_duration_seconds_count{extension_point="PostFilter",`+profile+`,status="Unschedulable"} 1`,
			`scheduler_framework_extension_point_duration_seconds_count{extension_point="Bind",`+profile+`,status="Success"} 1`,
			`scheduler_preemption_attempts_total 1`,
			`scheduler_preemption_victims_count 0`,
			`scheduler_cache_size{type="nodes"} 1`,
			`scheduler_cache_size{type="pods"} 1`,
			`scheduler_goroutines{operation="binding"} 0`)

		demand := func() (int, []string) {
			w := httptest.NewRecorder()
			m.Demand().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", scheduler.DemandPath, nil))
			return w.Code, strings.Split(w.Body.String(), "\n")
		}
		_, asked := demand()
		expectFigures(t, asked,
			`kube_pod_resource_request{namespace="default",node="one",pod="fits",priority="0",resource="cpu",scheduler="default-scheduler",unit="cores"} 3`,
			`kube_pod_resource_request{namespace="default",node="",pod="waits",priority="0",resource="cpu",scheduler="default-scheduler",unit="cores"} 2`)

		// Somebody more important makes room; whoever waited for that is looked at again.
		p.addPod("high", "4", withPriority(1000))
		p.settle()
		none := int64(0)
		if err := client.Pods.Delete(t.Context(), p.admin, "default", "fits", metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		p.want("high", "one")
		expectFigures(t, figures(t, m),
			`scheduler_preemption_victims_count 1`, `scheduler_preemption_victims_sum 1`,
			`scheduler_framework_extension_point_duration_seconds_count{extension_point="PostFilter",`+profile+`,status="Success"} 1`,
			`scheduler_schedule_attempts_total{`+profile+`,result="scheduled"} 2`,
			`scheduler_pod_scheduling_sli_duration_seconds_count{attempts="2"} 1`,
			`scheduler_queue_incoming_pods_total{event="AssignedPodDelete",queue="backoff"} 2`)
		stop()
		if got := figures(t, m); slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "scheduler_pending_pods{") }) {
			t.Errorf("pods are pending in a queue that is no more")
		}
		if code, _ := demand(); code != http.StatusServiceUnavailable {
			t.Errorf("without a scheduler %d", code)
		}
	})
}

// exit has a pod end, as the node's agent would tell.
func (p *plane) exit(pod *corev1.Pod, phase corev1.PodPhase, code int32) {
	p.Helper()
	done := pod.DeepCopy()
	done.Status.Phase = phase
	done.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}}
	must[*corev1.Pod](p)(client.Pods.UpdateStatus(p.Context(), p.admin, done))
}

// What controllers do with jobs, autoscalers and nodes is counted under upstream's
// names.
func TestControllerFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := measure.New()
		p := boot(t, func(*apiserver.Config) {}, m.With)
		p.settle()
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "two"}, Spec: batchv1.JobSpec{
			Completions: new(int32(2)), Parallelism: new(int32(2)),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionIgnore,
				OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{7}}}}},
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
		must[*batchv1.Job](p)(client.Jobs.Create(t.Context(), p.admin, job))
		p.settle()
		pods, _, err := client.Pods.List(t.Context(), p.admin, "default", metav1.ListOptions{})
		if err != nil || len(pods) != 2 {
			t.Fatalf("%d pods, %v", len(pods), err)
		}
		p.exit(pods[0], corev1.PodFailed, 7)
		p.exit(pods[1], corev1.PodSucceeded, 0)
		time.Sleep(time.Minute)
		pods, _, err = client.Pods.List(t.Context(), p.admin, "default", metav1.ListOptions{FieldSelector: "status.phase=Pending"})
		if err != nil || len(pods) != 1 {
			t.Fatalf("%d pods to replace one, %v", len(pods), err)
		}
		p.exit(pods[0], corev1.PodSucceeded, 0)

		hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "none"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			MaxReplicas: 2, ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "none"}}}
		must[*autoscalingv2.HorizontalPodAutoscaler](p)(client.HorizontalPodAutoscalers.Create(t.Context(), p.admin, hpa))
		set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "set"}, Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(3)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
		must[*appsv1.StatefulSet](p)(client.StatefulSets.Create(t.Context(), p.admin, set))
		p.addNode("lost", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "z" })
		p.addNode("well")
		time.Sleep(2 * time.Minute)
		expectFigures(t, figures(t, m),
			`job_controller_jobs_finished_total{completion_mode="NonIndexed",reason="CompletionsReached",result="succeeded"} 1`,
			`job_controller_job_pods_finished_total{completion_mode="NonIndexed",result="succeeded"} 2`,
			`job_controller_pod_failures_handled_by_failure_policy_total{action="Ignore"} 1`,
			`job_controller_terminated_pods_tracking_finalizer_total{event="add"} 3`,
			`job_controller_terminated_pods_tracking_finalizer_total{event="delete"} 3`,
			`job_controller_job_syncs_total{action="pods_created",completion_mode="NonIndexed",result="success"} 2`,
			`job_controller_job_sync_duration_seconds_count{action="pods_created",completion_mode="NonIndexed",result="success"} 2`,
			`statefulset_controller_statefulset_max_unavailable{pod_management_policy="OrderedReady",statefulset_name="set",statefulset_namespace="default"} 1`,
			`statefulset_controller_statefulset_unavailable_replicas{pod_management_policy="OrderedReady",statefulset_name="set",statefulset_namespace="default"} 3`,
			`node_collector_zone_size{zone=":`+"\x00"+`:z"} 1`,
			`node_collector_unhealthy_nodes_in_zone{zone=":`+"\x00"+`:z"} 1`,
			`node_collector_zone_size{zone=""} 1`)
		if got := strings.Join(figures(t, m), "\n"); !strings.Contains(got, `horizontal_pod_autoscaler_controller_reconciliations_total{action="none",error="internal"} `) {
			t.Error("an autoscaler without a target is not counted")
		}
		if err := client.StatefulSets.Delete(t.Context(), p.admin, "default", "set", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := strings.Join(figures(t, m), "\n"); strings.Contains(got, `statefulset_name="set"`) {
			t.Error("a set that is gone is told of")
		}
	})
}

// A cron job's job comes a little after its time, and that is told.
func TestCronJobFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := measure.New()
		p := boot(t, func(*apiserver.Config) {}, m.With)
		p.settle()
		cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "often"}, Spec: batchv1.CronJobSpec{Schedule: "* * * * *", JobTemplate: batchv1.JobTemplateSpec{
			Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}}}
		must[*batchv1.CronJob](p)(client.CronJobs.Create(t.Context(), p.admin, cj))
		time.Sleep(2 * time.Minute)
		expectFigures(t, figures(t, m), `cronjob_controller_job_creation_skew_duration_seconds_count 2`)
	})
}
