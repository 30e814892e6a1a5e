package measure

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a pod is removed whatever its node says; upstream's words.
const (
	PodTerminated   = "terminated"
	PodOutOfService = "out-of-service"
	PodOrphaned     = "orphaned"
	PodUnscheduled  = "unscheduled"
)

func (m *Metrics) ends() {
	m.podsForced = counter("pod_gc_collector_force_delete_pods_total", "Number of pods that are being forcefully deleted since the Pod GC Controller started.", "namespace", "reason")
	m.podFaults = counter("pod_gc_collector_force_delete_pod_errors_total", "Number of errors encountered when forcefully deleting the pods since the Pod GC Controller started.", "namespace", "reason")
	m.jobsLate = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ttl_after_finished_controller_job_deletion_duration_seconds",
		Help: "The time it took to delete the job since it became eligible for deletion", Buckets: prometheus.ExponentialBuckets(0.1, 2, 14)})
	m.autoscalersHeld = prometheus.NewGauge(prometheus.GaugeOpts{Name: "horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers",
		Help: "Current number of controlled HPA objects."})
	m.replicasWanted = gauge("horizontal_pod_autoscaler_controller_desired_replicas", "Current desired replica count for HPA objects.", "namespace", "hpa_name")
	m.autoscalersStale = counter("horizontal_pod_autoscaler_controller_stale_sync_skips_total", "Looks at an autoscaler that were put off, since the mirror was older than the controller's own writes.", "group", "resource")
}

// PodForced notes that a pod was removed whatever its node says, and what came of it.
func (m *Metrics) PodForced(namespace, reason string, err error) {
	if m == nil {
		return
	}
	m.podsForced.WithLabelValues(namespace, reason).Inc()
	if err != nil {
		m.podFaults.WithLabelValues(namespace, reason).Inc()
	}
}

// JobExpired notes that a finished job was removed so long after its time.
func (m *Metrics) JobExpired(late time.Duration) {
	if m != nil {
		m.jobsLate.Observe(late.Seconds())
	}
}

// Autoscalers notes how many there are.
func (m *Metrics) Autoscalers(n int) {
	if m != nil {
		m.autoscalersHeld.Set(float64(n))
	}
}

// ReplicasWanted notes how many an autoscaler wants.
func (m *Metrics) ReplicasWanted(namespace, name string, n int32) {
	if m != nil {
		m.replicasWanted.WithLabelValues(namespace, name).Set(float64(n))
	}
}

// AutoscalerGone forgets an autoscaler.
func (m *Metrics) AutoscalerGone(namespace, name string) {
	if m != nil {
		m.replicasWanted.DeleteLabelValues(namespace, name)
	}
}

// AutoscalerStale notes a look that was put off.
func (m *Metrics) AutoscalerStale() {
	if m != nil {
		m.autoscalersStale.WithLabelValues("autoscaling", "horizontalpodautoscalers").Inc()
	}
}
