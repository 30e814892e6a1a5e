package tally

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// node counts what concerns the node as a whole, and its volumes.
type node struct {
	groupSeconds                *prometheus.HistogramVec
	storageSeconds              *prometheus.HistogramVec
	swept, sweepFaults          prometheus.Gauge
	cgroup, downFrom, downUntil prometheus.Gauge
	startup                     map[Stage]prometheus.Gauge
	streams, streamFaults       prometheus.Counter
	streamSeconds               prometheus.Histogram
	rotations                   prometheus.Histogram
	reservedMin, reservedLow    prometheus.Gauge
	requests                    *prometheus.CounterVec
	requestSeconds              *prometheus.HistogramVec
	statsAge                    *prometheus.HistogramVec
}

// Stage is a part of a node's way to being ready.
type Stage string

// The stages, and all of them together.
const (
	BeforeAgent       Stage = "pre_kubelet_"
	BeforeRegistering Stage = "pre_registration_"
	Registering       Stage = "registration_"
	AfterRegistering  Stage = "post_registration_"
	WholeStart        Stage = ""
)

var storageBuckets = []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600}

// rotationBuckets are ages of certificates, from a minute to four years.
var rotationBuckets = []float64{60, 3600, 14400, 86400, 604800, 2592000, 7776000, 15552000, 31104000, 124416000}

func newNode(t *Tally) node {
	n := node{
		groupSeconds:   histograms(t, "kubelet_cgroup_manager_duration_seconds", "Seconds of the agent's work on cgroups, by what it did.", prometheus.DefBuckets, "operation_type"),
		storageSeconds: histograms(t, "storage_operation_duration_seconds", "Storage operation duration", storageBuckets, "volume_plugin", "operation_name", "status", "migrated"),
		swept:          gauge(t, "orphan_pod_cleaned_volumes", "Pods that nobody knew any more and whose volumes were removed, at the last sweep."),
		sweepFaults:    gauge(t, "orphan_pod_cleaned_volumes_errors", "Pods that nobody knew any more and whose volumes could not be removed, at the last sweep."),
		reservedMin:    gauge(t, "memory_qos_node_memory_min_bytes", "Memory that is kept for guaranteed pods from all others (memory.min)."),
		reservedLow:    gauge(t, "memory_qos_node_memory_low_bytes", "Memory that is kept for burstable pods as long as there is other (memory.low)."),
		cgroup:         gauge(t, "cgroup_version", "cgroup version on the hosts."),
		downFrom:       gauge(t, "graceful_shutdown_start_time_seconds", "When the node last began to go down, in seconds since 1970."),
		downUntil:      gauge(t, "graceful_shutdown_end_time_seconds", "When the node's pods had all ended for its going down, in seconds since 1970; 0 while they are ending."),
		startup:        map[Stage]prometheus.Gauge{},
		streams:        counter(t, "evented_pleg_connection_success_count", "How often the stream of the engine's events was opened."),
		streamFaults:   counter(t, "evented_pleg_connection_error_count", "How often the stream of the engine's events could not be opened."),
		streamSeconds:  histogram(t, "kubelet_evented_pleg_connection_latency_seconds", "Seconds from an event of the engine's until the agent had it.", prometheus.DefBuckets),
		rotations:      histogram(t, "kubelet_certificate_manager_server_rotation_seconds", "How old serving certificates were when the next took their place, in seconds.", rotationBuckets),
		requests:       plain(t, "rest_client_requests_total", "Number of HTTP requests, partitioned by status code, method, and host.", "code", "method", "host"),
		requestSeconds: histograms(t, "rest_client_request_duration_seconds", "Request latency in seconds. Broken down by verb, and host.",
			[]float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60}, "verb", "host"),
		statsAge: histograms(t, "kubelet_eviction_stats_age_seconds", "Seconds from when the node was looked at until a pod was evicted for what was seen, by signal.", prometheus.DefBuckets, "eviction_signal"),
	}
	for stage, help := range map[Stage]string{
		BeforeAgent: "before the agent began", BeforeRegistering: "from the agent's beginning until it first asked for its Node",
		Registering: "from that until the API had the Node", AfterRegistering: "from that until the Node was ready", WholeStart: "in all",
	} {
		n.startup[stage] = gauge(t, "node_startup_"+string(stage)+"duration_seconds", "Seconds that the start of the node took "+help+".")
	}
	return n
}

// GroupsChanged counts work on cgroups of the agent's.
func (t *Tally) GroupsChanged(operation string, took time.Duration) {
	t.node.groupSeconds.WithLabelValues(operation).Observe(took.Seconds())
}

// Stored counts an operation on a volume: volume_mount, volume_unmount, map_volume,
// unmap_volume or volume_fs_resize, by the plugin's name.
func (t *Tally) Stored(plugin, operation string, took time.Duration, err error) {
	status := "success"
	if err != nil {
		status = "fail-unknown"
	}
	t.node.storageSeconds.WithLabelValues(plugin, operation, status, strconv.FormatBool(false)).Observe(took.Seconds())
}

// Swept tells of a sweep: of how many pods that nobody knows the volumes have been
// removed, and of how many they could not be.
func (t *Tally) Swept(cleaned, failed int) {
	t.node.swept.Set(float64(cleaned))
	t.node.sweepFaults.Set(float64(failed))
}

// Cgroup tells which version of cgroups the machine has.
func (t *Tally) Cgroup(version int) { t.node.cgroup.Set(float64(version)) }

// GoesDown tells when the node began to go down, and, unless it is zero, when its pods
// had ended.
func (t *Tally) GoesDown(from, until time.Time) {
	t.node.downFrom.Set(float64(from.UnixNano()) / 1e9)
	end := 0.0
	if !until.IsZero() {
		end = float64(until.UnixNano()) / 1e9
	}
	t.node.downUntil.Set(end)
}

// Started tells how long a stage of the node's start took; nothing when t is nil.
func (t *Tally) Started(s Stage, took time.Duration) {
	if t == nil {
		return
	}
	t.node.startup[s].Set(took.Seconds())
}

// MemoryReserved tells how many bytes are kept for guaranteed and for burstable pods.
func (t *Tally) MemoryReserved(guaranteed, burstable int64) {
	t.node.reservedMin.Set(float64(guaranteed))
	t.node.reservedLow.Set(float64(burstable))
}

// Followed counts an attempt to open the stream of the engine's events.
func (t *Tally) Followed(err error) {
	if err != nil {
		t.node.streamFaults.Inc()
		return
	}
	t.node.streams.Inc()
}

// EventTook counts an event of the engine's that arrived so long after it.
func (t *Tally) EventTook(d time.Duration) { t.node.streamSeconds.Observe(d.Seconds()) }

// CertificateRenewed counts a serving certificate that took the place of one which was
// so old.
func (t *Tally) CertificateRenewed(age time.Duration) { t.node.rotations.Observe(age.Seconds()) }

// Requested counts a request to the API server.
func (t *Tally) Requested(host, method string, code int, took time.Duration) {
	text := strconv.Itoa(code)
	if code == 0 {
		text = "<error>" // upstream's word for no answer at all
	}
	t.node.requests.WithLabelValues(text, method, host).Inc()
	t.node.requestSeconds.WithLabelValues(method, host).Observe(took.Seconds())
}
