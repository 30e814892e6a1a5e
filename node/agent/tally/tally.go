// Package tally counts what a node's agent does, under the names and labels of the
// kubelet's metrics: what dashboards for nodes look for. Counting is cheap, and all
// of it may be done from any goroutine.
package tally

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// The values of the label container_type.
const (
	Container = "container"
	Init      = "init_container"
	Ephemeral = "ephemeral_container"
)

// startBuckets are upstream's for starts of pods, in seconds.
var startBuckets = []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}

// Tally is a Collector of the agent's counts.
type Tally struct {
	all []prometheus.Collector

	operations, operationErrors *prometheus.CounterVec
	operationSeconds            *prometheus.HistogramVec

	startedPods, startedPodErrors             prometheus.Counter
	startedContainers, startedContainerErrors *prometheus.CounterVec
	terminated, evictions                     *prometheus.CounterVec
	startSeconds                              prometheus.Histogram
	images                                    images
	pods                                      pods
	parts                                     parts
	node                                      node
	resizes                                   resizes
	// first is the first pod with a network, whose start is told by itself.
	first sync.Once
}

// New makes a Tally of the node's agent.
func New(node string) *Tally {
	t := &Tally{}
	t.operations = counters(t, "runtime_operations_total", "Cumulative number of runtime operations by operation type.", "operation_type")
	t.operationErrors = counters(t, "runtime_operations_errors_total", "Cumulative number of runtime operation errors by operation type.", "operation_type")
	t.operationSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_runtime_operations_duration_seconds",
		Help:    "Duration in seconds of runtime operations. Broken down by operation type.",
		Buckets: prometheus.ExponentialBuckets(.005, 2.5, 14)}, []string{"operation_type"})
	t.startedPods = counter(t, "started_pods_total", "Cumulative number of pods started")
	t.startedPodErrors = counter(t, "started_pods_errors_total", "Cumulative number of errors when starting pods")
	t.startedContainers = counters(t, "started_containers_total", "Cumulative number of containers started", "container_type")
	t.startedContainerErrors = counters(t, "started_containers_errors_total", "Cumulative number of errors when starting containers", "container_type", "code")
	t.terminated = counters(t, "terminated_containers_total", "Cumulative number of container terminations.", "container_type", "exit_code", "reason")
	t.evictions = counters(t, "evictions", "Cumulative number of pod evictions by eviction signal", "eviction_signal")
	t.startSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kubelet_pod_start_duration_seconds",
		Help: "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run", Buckets: startBuckets})
	t.images, t.pods, t.parts, t.node, t.resizes = newImages(t), newPods(t), newParts(t), newNode(t), newResizes(t)
	name := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_node_name", Help: "The node's name. The count is always 1."}, []string{"node"})
	name.WithLabelValues(node).Set(1)
	t.all = append(t.all, t.operationSeconds, t.startSeconds, name)
	return t
}

func counter(t *Tally, name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "kubelet_" + name, Help: help})
	t.all = append(t.all, c)
	return c
}

func counters(t *Tally, name, help string, labels ...string) *prometheus.CounterVec {
	return plain(t, "kubelet_"+name, help, labels...)
}

// plain are counters whose name isn't the kubelet's.
func plain(t *Tally, name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	t.all = append(t.all, c)
	return c
}

func gauge(t *Tally, name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_" + name, Help: help})
	t.all = append(t.all, g)
	return g
}

func histogram(t *Tally, name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	t.all = append(t.all, h)
	return h
}

func histograms(t *Tally, name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	t.all = append(t.all, h)
	return h
}

// Describe implements prometheus.Collector.
func (t *Tally) Describe(to chan<- *prometheus.Desc) {
	for _, c := range t.all {
		c.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (t *Tally) Collect(to chan<- prometheus.Metric) {
	for _, c := range t.all {
		c.Collect(to)
	}
}

// Operation counts a call of the container runtime.
func (t *Tally) Operation(operation string, took time.Duration, err error) {
	t.operations.WithLabelValues(operation).Inc()
	t.operationSeconds.WithLabelValues(operation).Observe(took.Seconds())
	if err != nil {
		t.operationErrors.WithLabelValues(operation).Inc()
	}
}

// ContainerStarted counts an attempt to start a container; code is why it failed,
// "" when it did not.
func (t *Tally) ContainerStarted(kind, code string) {
	t.startedContainers.WithLabelValues(kind).Inc()
	if code != "" {
		t.startedContainerErrors.WithLabelValues(kind, code).Inc()
	}
}

// PodRuns counts a pod that runs now, which the agent saw for the first time some
// time ago.
func (t *Tally) PodRuns(since time.Duration) { t.startSeconds.Observe(since.Seconds()) }

// Evicted counts a pod that had to leave, since the resource of a signal was short, as
// was seen at a time.
func (t *Tally) Evicted(signal string, seen time.Time) {
	t.evictions.WithLabelValues(signal).Inc()
	t.node.statsAge.WithLabelValues(signal).Observe(time.Since(seen).Seconds())
}

// Status counts the containers that have ended since the status before.
func (t *Tally) Status(before, now *corev1.PodStatus) {
	t.ends(Init, before.InitContainerStatuses, now.InitContainerStatuses)
	t.ends(Container, before.ContainerStatuses, now.ContainerStatuses)
	t.ends(Ephemeral, before.EphemeralContainerStatuses, now.EphemeralContainerStatuses)
}

func (t *Tally) ends(kind string, before, now []corev1.ContainerStatus) {
	ended := func(c *corev1.ContainerStatus) *corev1.ContainerStateTerminated { return c.State.Terminated }
	for i := range now {
		end := ended(&now[i])
		if end == nil {
			continue
		}
		known := false
		for j := range before {
			known = known || before[j].Name == now[i].Name && ended(&before[j]) != nil
		}
		if !known {
			t.terminated.WithLabelValues(kind, strconv.Itoa(int(end.ExitCode)), end.Reason).Inc()
		}
	}
}

// KindOf is the type of a pod's container.
func KindOf(pod *corev1.Pod, name string) string {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return Init
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return Ephemeral
		}
	}
	return Container
}
