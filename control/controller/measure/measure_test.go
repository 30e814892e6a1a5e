package measure

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
)

// upstream is what v1.37's controller manager has, stable, beta and of some controllers
// alpha too, of the metrics of its controllers: NAME LABELS [BUCKETS].
const upstream = `
endpoint_slice_mirroring_controller_addresses_skipped_per_sync - 2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768
endpoint_slice_mirroring_controller_changes operation
endpoint_slice_mirroring_controller_desired_endpoint_slices -
endpoint_slice_mirroring_controller_endpoints_added_per_sync - 2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768
endpoint_slice_mirroring_controller_endpoints_desired -
endpoint_slice_mirroring_controller_endpoints_removed_per_sync - 2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768
endpoint_slice_mirroring_controller_endpoints_sync_duration - 0.001,0.002,0.004,0.008,0.016,0.032,0.064,0.128,0.256,0.512,1.024,2.048,4.096,8.192,16.384
endpoint_slice_mirroring_controller_endpoints_updated_per_sync - 2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768
endpoint_slice_mirroring_controller_num_endpoint_slices -
horizontal_pod_autoscaler_controller_desired_replicas hpa_name,namespace
horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers -
horizontal_pod_autoscaler_controller_stale_sync_skips_total group,resource
pod_gc_collector_force_delete_pod_errors_total namespace,reason
pod_gc_collector_force_delete_pods_total namespace,reason
ttl_after_finished_controller_job_deletion_duration_seconds - 0.1,0.2,0.4,0.8,1.6,3.2,6.4,12.8,25.6,51.2,102.4,204.8,409.6,819.2
cronjob_controller_job_creation_skew_duration_seconds - 1,2,4,8,16,32,64,128,256,512
endpoint_slice_controller_changes operation
endpoint_slice_controller_desired_endpoint_slices -
endpoint_slice_controller_endpoints_added_per_sync - 2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768
endpoint_slice_controller_endpoints_desired -
endpoint_slice_controller_endpoints_removed_per_sync - 2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768
endpoint_slice_controller_endpointslices_changed_per_sync topology,traffic_distribution 0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10
endpoint_slice_controller_num_endpoint_slices -
endpoint_slice_controller_services_count_by_traffic_distribution traffic_distribution
endpoint_slice_controller_syncs result
horizontal_pod_autoscaler_controller_metric_computation_duration_seconds action,error,metric_type 0.001,0.002,0.004,0.008,0.016,0.032,0.064,0.128,0.256,0.512,1.024,2.048,4.096,8.192,16.384
horizontal_pod_autoscaler_controller_metric_computation_total action,error,metric_type
horizontal_pod_autoscaler_controller_reconciliation_duration_seconds action,error 0.001,0.002,0.004,0.008,0.016,0.032,0.064,0.128,0.256,0.512,1.024,2.048,4.096,8.192,16.384
horizontal_pod_autoscaler_controller_reconciliations_total action,error
job_controller_job_pods_finished_total completion_mode,result
job_controller_job_sync_duration_seconds action,completion_mode,result 0.004,0.008,0.016,0.032,0.064,0.128,0.256,0.512,1.024,2.048,4.096,8.192,16.384,32.768,65.536
job_controller_job_syncs_total action,completion_mode,result
job_controller_jobs_finished_total completion_mode,reason,result
job_controller_pod_failures_handled_by_failure_policy_total action
job_controller_terminated_pods_tracking_finalizer_total event
node_collector_evictions_total zone
statefulset_controller_statefulset_max_unavailable pod_management_policy,statefulset_name,statefulset_namespace
statefulset_controller_statefulset_unavailable_replicas pod_management_policy,statefulset_name,statefulset_namespace
`

// Names, labels and buckets are upstream's.
func TestAgainstUpstream(t *testing.T) {
	m := New()
	ctx := m.With(t.Context())
	everything(From(ctx))
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, f := range all {
		one := f.GetMetric()[0]
		labels := []string{}
		for _, l := range one.GetLabel() {
			labels = append(labels, l.GetName())
		}
		line := f.GetName() + " -"
		if len(labels) > 0 {
			line = f.GetName() + " " + strings.Join(labels, ",")
		}
		if h := one.GetHistogram(); h != nil {
			bounds := []string{}
			for _, b := range h.GetBucket() {
				bounds = append(bounds, fmt.Sprint(b.GetUpperBound()))
			}
			line += " " + strings.Join(bounds, ",")
		}
		have[line] = true
	}
	for line := range strings.Lines(strings.TrimSpace(upstream)) {
		if line = strings.TrimSpace(line); !have[line] {
			t.Errorf("%s is missing in %v", line, have)
		}
	}
}

// everything counts something of everything.
func everything(m *Metrics) {
	job := &batchv1.Job{}
	m.JobSynced(job, Tracking, errors.New("no"), time.Now())
	m.JobFinished(job, &batchv1.JobCondition{Type: batchv1.JobFailed, Reason: "BackoffLimitExceeded"})
	m.JobPods(&batchv1.Job{Status: batchv1.JobStatus{Succeeded: 1}}, &batchv1.JobStatus{})
	m.PodFailures(map[batchv1.PodFailurePolicyAction]int{batchv1.PodFailurePolicyActionCount: 1})
	m.PodTracked(true)
	m.CronJobStarted(time.Second)
	m.Autoscaled(Scaling{Current: 1, Wanted: 2, Blame: NoError, Began: time.Now()})
	m.Computed(autoscalingv2.ResourceMetricSourceType, Scaling{Current: 2, Wanted: 1, Blame: NoError, Began: time.Now()})
	m.StatefulSet(&appsv1.StatefulSet{}, 1, 0)
	m.Sliced("a/b", true, "PreferSameZone", []Sliced{{Endpoints: 1, Slices: 1, Ideal: 1}})
	m.SliceChanged("create")
	m.SlicesSynced("success")
	m.SlicesGone("a/c")
	m.Zones(map[string]int{"a": 1}, map[string]int{"b": 1})
	m.NodeEvicted("a")
	m.Mirrored("a/b", Mirrored{Endpoints: 3, Slices: 1, Added: 3, Began: time.Now()})
	m.MirrorChanged("create")
	m.MirrorsGone("a/c")
	m.PodForced("a", PodOrphaned, errors.New("no"))
	m.JobExpired(time.Second)
	m.Autoscalers(1)
	m.ReplicasWanted("a", "b", 3)
	m.ReplicasWanted("a", "c", 3)
	m.AutoscalerGone("a", "c")
	m.AutoscalerStale()
}

// Where nobody listens, nothing is counted, and nothing breaks.
func TestNobody(*testing.T) { everything(From(context.Background())) }

// What services have is summed up, and goes with them.
func TestSlices(t *testing.T) {
	m := New()
	m.Sliced("a", false, "PreferSameZone", []Sliced{{Endpoints: 150, Slices: 3, Ideal: 2}, {Slices: 1}})
	m.Sliced("b", false, "PreferSameZone", []Sliced{{Endpoints: 1, Slices: 1, Ideal: 1}})
	m.Sliced("a", false, "", []Sliced{{Endpoints: 90, Slices: 2, Ideal: 1}})
	m.SlicesGone("b")
	m.SlicesGone("b")
	m.Sliced("c", false, "PreferSameNode", []Sliced{{Endpoints: 5, Slices: 1, Ideal: 1}})
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"endpoints_desired": 95, "num_endpoint_slices": 3, "desired_endpoint_slices": 2}
	for _, f := range all {
		name := strings.TrimPrefix(f.GetName(), "endpoint_slice_controller_")
		if w, ok := want[name]; ok {
			if got := f.GetMetric()[0].GetGauge().GetValue(); got != w {
				t.Errorf("%s is %v, want %v", name, got, w)
			}
			delete(want, name)
		}
		if name == "services_count_by_traffic_distribution" {
			got := ""
			for _, one := range f.GetMetric() {
				got += fmt.Sprintf("%s=%v ", one.GetLabel()[0].GetValue(), one.GetGauge().GetValue())
			}
			if got != "PreferSameNode=1 PreferSameZone=0 " {
				t.Errorf("services %s", got)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}
