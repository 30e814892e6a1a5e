package reconcile

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// places is how many buckets the histograms of queues have.
const places = 12

// bounds are upstream's for queues: from 10 ns to a thousand seconds, in tens.
var bounds = prometheus.ExponentialBuckets(10e-9, 10, places)

// Metrics gather what is known of the loops that run under them, as upstream's
// workqueue_*. It is a prometheus.Collector. Safe for concurrent use.
type Metrics struct {
	mu    sync.Mutex
	loops map[*Loop]bool
}

// NewMetrics returns Metrics without loops.
func NewMetrics() *Metrics { return &Metrics{loops: map[*Loop]bool{}} }

type metricsKey struct{}

// With returns a context in which Loop.Run shows its loop to m.
func (m *Metrics) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, metricsKey{}, m)
}

// shown adds a loop, if its context has Metrics, until the function returned is
// called.
func (l *Loop) shown(ctx context.Context) (leave func()) {
	m, ok := ctx.Value(metricsKey{}).(*Metrics)
	if !ok {
		return func() {}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loops[l] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.loops, l)
	}
}

// stats count what a loop does; guarded by its mutex.
type stats struct {
	adds, retries  uint64
	waited, worked histogram
}

// histogram has its bounds in common with all others.
type histogram struct {
	buckets [places]uint64
	count   uint64
	sum     float64
}

func (h *histogram) observe(d time.Duration) {
	v := d.Seconds()
	h.count++
	h.sum += v
	for i, bound := range bounds {
		if v <= bound {
			h.buckets[i]++
			return
		}
	}
}

func (h *histogram) metric(d *prometheus.Desc, name string) prometheus.Metric {
	upTo := make(map[float64]uint64, places)
	var n uint64
	for i, bound := range bounds {
		n += h.buckets[i]
		upTo[bound] = n
	}
	return prometheus.MustNewConstHistogram(d, h.count, h.sum, upTo, name)
}

func queueDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("workqueue_"+name, help, []string{"name"}, nil)
}

var (
	depthDesc      = queueDesc("depth", "Current depth of workqueue by workqueue and priority")
	addsDesc       = queueDesc("adds_total", "Total number of adds handled by workqueue")
	retriesDesc    = queueDesc("retries_total", "Total number of retries handled by workqueue")
	waitedDesc     = queueDesc("queue_duration_seconds", "How long in seconds an item stays in workqueue before being requested.")
	workedDesc     = queueDesc("work_duration_seconds", "How long in seconds processing an item from workqueue takes.")
	unfinishedDesc = queueDesc("unfinished_work_seconds", "How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.")
	longestDesc    = queueDesc("longest_running_processor_seconds", "How many seconds has the longest running processor for workqueue been running.")
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{depthDesc, addsDesc, retriesDesc, waitedDesc, workedDesc, unfinishedDesc, longestDesc} {
		c <- d
	}
}

// Collect implements prometheus.Collector. Of several loops of one name, which no
// list of controllers has, only one is told.
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := map[string]bool{}
	for l := range m.loops {
		if name := l.r.Name(); !told[name] {
			told[name] = true
			l.collect(c, name)
		}
	}
}

func (l *Loop) collect(c chan<- prometheus.Metric, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var unfinished, longest time.Duration
	for _, s := range l.keys {
		if s.running {
			unfinished += now.Sub(s.began)
			longest = max(longest, now.Sub(s.began))
		}
	}
	gauge := func(d *prometheus.Desc, v float64) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name)
	}
	counter := func(d *prometheus.Desc, v uint64) {
		c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), name)
	}
	gauge(depthDesc, float64(l.ready.len()))
	counter(addsDesc, l.stats.adds)
	counter(retriesDesc, l.stats.retries)
	c <- l.stats.waited.metric(waitedDesc, name)
	c <- l.stats.worked.metric(workedDesc, name)
	gauge(unfinishedDesc, unfinished.Seconds())
	gauge(longestDesc, longest.Seconds())
}
