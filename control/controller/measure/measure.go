// Package measure counts what controllers do, under upstream's names of metrics; how
// busy a controller is, is in reconcile.Metrics.
//
// The Metrics travel in the context in which a controller runs: they outlive it, since
// a control plane may lose and win its election again.
package measure

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of all controllers. It is a prometheus.Collector. All methods are safe for
// concurrent use, and do nothing when it is nil.
type Metrics struct {
	jobSyncs, jobsFinished, jobPods, jobFailures, jobTracking *prometheus.CounterVec
	jobSeconds                                                *prometheus.HistogramVec
	cronSkew                                                  prometheus.Histogram
	scalings, computations                                    *prometheus.CounterVec
	scalingSeconds, computationSeconds                        *prometheus.HistogramVec
	evictions                                                 *prometheus.CounterVec
	zoneSize, zoneHealth, zoneUnhealthy                       *prometheus.GaugeVec
	setMost, setMissing                                       *prometheus.GaugeVec
	slices                                                    *ledger
	mirrors                                                   *mirrors
	podsForced, podFaults, autoscalersStale                   *prometheus.CounterVec
	jobsLate                                                  prometheus.Histogram
	autoscalersHeld                                           prometheus.Gauge
	replicasWanted                                            *prometheus.GaugeVec

	mu    sync.Mutex
	zones map[string]bool // that there are, or have been
}

// New returns Metrics that nobody has counted in.
func New() *Metrics {
	m := &Metrics{zones: map[string]bool{}, slices: newLedger(), mirrors: newMirrors()}
	m.jobs()
	m.autoscalers()
	m.ends()
	m.evictions = counter("node_collector_evictions_total", "Number of Node evictions that happened since current instance of NodeController started.", "zone")
	m.zoneSize = gauge("node_collector_zone_size", "Gauge measuring number of registered Nodes per zones.", "zone")
	m.zoneHealth = gauge("node_collector_zone_health", "Gauge measuring percentage of healthy nodes per zone.", "zone")
	m.zoneUnhealthy = gauge("node_collector_unhealthy_nodes_in_zone", "Gauge measuring number of not Ready Nodes per zones.", "zone")
	set := []string{"statefulset_namespace", "statefulset_name", "pod_management_policy"}
	m.setMost = gauge("statefulset_controller_statefulset_max_unavailable", "Maximum number of unavailable pods allowed during StatefulSet rolling updates", set...)
	m.setMissing = gauge("statefulset_controller_statefulset_unavailable_replicas", "Current number of unavailable pods in StatefulSet", set...)
	return m
}

func (m *Metrics) jobs() {
	sync := []string{"completion_mode", "result", "action"}
	m.jobSeconds = histogram("job_controller_job_sync_duration_seconds", "The time it took to sync a job", prometheus.ExponentialBuckets(0.004, 2, 15), sync...)
	m.jobSyncs = counter("job_controller_job_syncs_total", "The number of job syncs", sync...)
	m.jobsFinished = counter("job_controller_jobs_finished_total", "The number of finished jobs", "completion_mode", "result", "reason")
	m.jobPods = counter("job_controller_job_pods_finished_total", "The number of finished Pods that are fully tracked", "completion_mode", "result")
	m.jobFailures = counter("job_controller_pod_failures_handled_by_failure_policy_total",
		`The number of failed Pods handled by failure policy with respect to the failure policy action applied based on the matched rule. Possible values of the action label correspond to the possible values for the failure policy rule action, which are: "FailJob", "Ignore" and "Count".`, "action")
	m.jobTracking = counter("job_controller_terminated_pods_tracking_finalizer_total",
		`The number of terminated pods (phase=Failed|Succeeded) that have the finalizer batch.kubernetes.io/job-tracking The event label can be "add" or "delete".`, "event")
	m.cronSkew = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "cronjob_controller_job_creation_skew_duration_seconds",
		Help: "Time between when a cronjob is scheduled to be run, and when the corresponding job is created", Buckets: prometheus.ExponentialBuckets(1, 2, 10)})
}

func (m *Metrics) autoscalers() {
	const name = "horizontal_pod_autoscaler_controller_"
	const labels = " The label 'action' should be either 'scale_down', 'scale_up', or 'none'. Also, the label 'error' should be either 'spec', 'internal', or 'none'."
	const both = " Note that if both spec and internal errors happen during a reconciliation, the first one to occur is reported in `error` label."
	const kind = " The label 'metric_type' corresponds to HPA.spec.metrics[*].type"
	buckets := prometheus.ExponentialBuckets(0.001, 2, 15)
	m.scalings = counter(name+"reconciliations_total", "Number of reconciliations of HPA controller."+labels+both, "action", "error")
	m.scalingSeconds = histogram(name+"reconciliation_duration_seconds", "The time(seconds) that the HPA controller takes to reconcile once."+labels+both, buckets, "action", "error")
	m.computations = counter(name+"metric_computation_total", "Number of metric computations."+labels+kind, "action", "error", "metric_type")
	m.computationSeconds = histogram(name+"metric_computation_duration_seconds", "The time(seconds) that the HPA controller takes to calculate one metric."+labels+kind, buckets, "action", "error", "metric_type")
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}

func (m *Metrics) all() []prometheus.Collector {
	return append(append(m.slices.all(), m.mirrors.all()...), m.podsForced, m.podFaults, m.jobsLate, m.autoscalersHeld, m.replicasWanted, m.autoscalersStale, m.jobSyncs, m.jobsFinished, m.jobPods, m.jobFailures, m.jobTracking, m.jobSeconds, m.cronSkew,
		m.scalings, m.computations, m.scalingSeconds, m.computationSeconds,
		m.evictions, m.zoneSize, m.zoneHealth, m.zoneUnhealthy, m.setMost, m.setMissing)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(c chan<- *prometheus.Desc) {
	for _, one := range m.all() {
		one.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	for _, one := range m.all() {
		one.Collect(c)
	}
}

type key struct{}

// With returns a context in which From finds m.
func (m *Metrics) With(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, m) }

// From returns the Metrics of a context; nil if there are none.
func From(ctx context.Context) *Metrics {
	m, _ := ctx.Value(key{}).(*Metrics)
	return m
}

// since is the seconds since began.
func since(began time.Time) float64 { return time.Since(began).Seconds() }
