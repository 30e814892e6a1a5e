package scheduler

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// The results of an attempt, the extension points of upstream's framework, and what
// came of them; upstream's words.
const (
	attemptScheduled     = "scheduled"
	attemptUnschedulable = "unschedulable"
	attemptError         = "error"

	pointPreFilter  = "PreFilter"
	pointFilter     = "Filter"
	pointPostFilter = "PostFilter"
	pointScore      = "Score"
	pointReserve    = "Reserve"
	pointPreBind    = "PreBind"
	pointBind       = "Bind"

	pointSuccess       = "Success"
	pointUnschedulable = "Unschedulable"
	pointError         = "Error"
)

// maxAttemptsTold bounds the values of the label "attempts", as upstream does.
const maxAttemptsTold = 15

// Metrics are upstream's scheduler_*, as far as they mean something here: filters are
// compiled for each class of pods, so there is nothing to tell of single plugins but
// whom they refuse. It is a prometheus.Collector, outlives the schedulers that count
// in it, one at a time, and is safe for concurrent use.
type Metrics struct {
	attempts, arrivals              *prometheus.CounterVec
	latency, points, sli            *prometheus.HistogramVec
	algorithm, tries, victims       prometheus.Histogram
	preemptions                     prometheus.Counter
	pending, reasons, cached, hands *prometheus.GaugeVec

	running atomic.Pointer[Scheduler] // nil when none is
	mu      sync.Mutex                // one gathering at a time
}

// NewMetrics returns Metrics that nobody has counted in.
func NewMetrics() *Metrics {
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &Metrics{
		attempts: counters("schedule_attempts_total", "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
			"result", "profile"),
		arrivals:  counters("queue_incoming_pods_total", "Number of pods added to scheduling queues by event and queue type.", "queue", "event"),
		latency:   histograms("scheduling_attempt_duration_seconds", "Scheduling attempt latency in seconds (scheduling algorithm + binding)", seconds, "result", "profile"),
		points:    histograms("framework_extension_point_duration_seconds", "Latency for running all plugins of a specific extension point.", prometheus.ExponentialBuckets(0.0001, 2, 12), "extension_point", "status", "profile"),
		sli:       histograms("pod_scheduling_sli_duration_seconds", "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.", prometheus.ExponentialBuckets(0.01, 2, 20), "attempts"),
		algorithm: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_scheduling_algorithm_duration_seconds", Help: "Scheduling algorithm latency in seconds", Buckets: seconds}),
		tries:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_attempts", Help: "Number of attempts to successfully schedule a pod.", Buckets: prometheus.ExponentialBuckets(1, 2, 5)}),
		victims: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_preemption_victims", Help: "Number of selected preemption victims for preemption initiated by a single pod",
			Buckets: prometheus.ExponentialBuckets(1, 2, 7)}),
		preemptions: prometheus.NewCounter(prometheus.CounterOpts{Name: "scheduler_preemption_attempts_total", Help: "Total preemption attempts in the cluster till now"}),
		pending:     gauges("pending_pods", "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods that the scheduler attempted to schedule and failed; 'gated' is the number of pods that the scheduler never attempted to schedule because they are gated.", "queue"),
		reasons:     gauges("unschedulable_pods", "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.", "plugin", "profile"),
		cached:      gauges("cache_size", "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.", "type"),
		hands:       gauges("goroutines", "Number of running goroutines split by the work they do such as binding.", "operation"),
	}
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_" + name, Help: help}, labels)
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_" + name, Help: help}, labels)
}

func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_" + name, Help: help, Buckets: buckets}, labels)
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.attempts, m.arrivals, m.latency, m.points, m.sli, m.algorithm, m.tries, m.victims, m.preemptions, m.pending, m.reasons, m.cached, m.hands}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(c chan<- *prometheus.Desc) {
	for _, one := range m.all() {
		one.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.census()
	for _, one := range m.all() {
		one.Collect(c)
	}
}

// came counts the pods that come into a part of the queue; one goroutine may use it.
func (m *Metrics) came() func(queue, event string) {
	known := map[[2]string]prometheus.Counter{}
	return func(queue, event string) {
		key := [...]string{queue, event}
		c, ok := known[key]
		if !ok {
			c = m.arrivals.WithLabelValues(queue, event)
			known[key] = c
		}
		c.Inc()
	}
}

// decided notes a decision.
func (m *Metrics) decided(pod *corev1.Pod, o *outcome) {
	m.algorithm.Observe(o.Took.Seconds())
	before, filter := pointSuccess, pointSuccess
	switch {
	case o.failed != nil && o.spent[1] < 0:
		before = pointError
	case o.spent[1] < 0:
		before = pointUnschedulable
	case o.failed != nil:
		filter = pointError
	case o.Node == "":
		filter = pointUnschedulable
	}
	profile := pod.Spec.SchedulerName
	m.points.WithLabelValues(pointPreFilter, before, profile).Observe(o.spent[0].Seconds())
	if o.spent[1] >= 0 {
		m.points.WithLabelValues(pointFilter, filter, profile).Observe(o.spent[1].Seconds())
	}
	if o.spent[2] >= 0 {
		m.points.WithLabelValues(pointScore, pointSuccess, profile).Observe(o.spent[2].Seconds())
	}
}

// point notes how long an extension point took.
func (m *Metrics) point(point string, pod *corev1.Pod, err error, began time.Time) {
	status := pointSuccess
	if err != nil {
		status = pointError
	}
	m.points.WithLabelValues(point, status, pod.Spec.SchedulerName).Observe(time.Since(began).Seconds())
}

// madeRoom notes how long making room for a pod took.
func (m *Metrics) madeRoom(pod *corev1.Pod, found bool, began time.Time) {
	status := pointUnschedulable
	if found {
		status = pointSuccess
	}
	m.points.WithLabelValues(pointPostFilter, status, pod.Spec.SchedulerName).Observe(time.Since(began).Seconds())
}

// preempted notes an attempt to make room; p is nil if nobody has to go.
func (m *Metrics) preempted(p *preemption) {
	m.preemptions.Inc()
	if p != nil {
		m.victims.Observe(float64(len(p.victims)))
	}
}

// attempted notes the end of an attempt.
func (m *Metrics) attempted(pod *corev1.Pod, o *outcome, result string) {
	m.attempts.WithLabelValues(result, pod.Spec.SchedulerName).Inc()
	m.latency.WithLabelValues(result, pod.Spec.SchedulerName).Observe(time.Since(o.At).Seconds())
}

// effort is what it took until a pod is bound, for another goroutine to tell.
type effort struct {
	entered  time.Time
	attempts int
}

func newEffort(w *waiting) effort { return effort{w.entered, w.attempt} }

// bound notes the end of an attempt that found a node.
func (m *Metrics) bound(pod *corev1.Pod, o *outcome, e effort, err error) {
	if err != nil {
		m.attempted(pod, o, attemptError)
		return
	}
	m.attempted(pod, o, attemptScheduled)
	m.tries.Observe(float64(e.attempts))
	told := strconv.Itoa(e.attempts)
	if e.attempts >= maxAttemptsTold {
		told = strconv.Itoa(maxAttemptsTold) + "+"
	}
	m.sli.WithLabelValues(told).Observe(time.Since(e.entered).Seconds())
}
