package flow

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

const namespace, subsystem = "apiserver", "flowcontrol"

var (
	byLevel  = []string{"priority_level"}
	bySchema = []string{"priority_level", "flow_schema"}
	// durations are upstream's buckets, in seconds.
	durations = []float64{0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30}
)

// metrics are upstream's apiserver_flowcontrol_*. Counters are counted as things
// happen, by handles that a schema keeps; gauges are gathered when asked for.
type metrics struct {
	order *Order

	dispatched, rejected  *prometheus.CounterVec
	waited, ran           *prometheus.HistogramVec
	seats                 *prometheus.HistogramVec
	nominal, lower, upper *prometheus.Desc
	limit                 *prometheus.Desc
	running, held         *prometheus.GaugeVec
	queued, queuedSeats   *prometheus.GaugeVec
}

// schemaMetrics are the handles of one schema.
type schemaMetrics struct {
	level, schema string
	all           *metrics
	dispatched    prometheus.Counter
	waited, ran   prometheus.Observer
	waitedInVain  prometheus.Observer
	seats         prometheus.Observer

	running, held, queued, queuedSeats prometheus.Gauge
}

func newMetrics() *metrics {
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help, Buckets: buckets},
			append(append([]string{}, bySchema...), labels...))
	}
	gauge := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, byLevel, nil)
	}
	now := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, bySchema)
	}
	return &metrics{
		dispatched:  counter("dispatched_requests_total", "Number of requests executed by API Priority and Fairness subsystem", bySchema),
		rejected:    counter("rejected_requests_total", "Number of requests rejected by API Priority and Fairness subsystem", append(append([]string{}, bySchema...), "reason")),
		waited:      histogram("request_wait_duration_seconds", "Length of time a request spent waiting in its queue", durations, "execute"),
		ran:         histogram("request_execution_seconds", "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem", durations),
		seats:       histogram("work_estimated_seats", "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness", []float64{1, 2, 4, 10, 100}),
		nominal:     gauge("nominal_limit_seats", "Nominal number of execution seats configured for each priority level"),
		lower:       gauge("lower_limit_seats", "Configured lower bound on number of execution seats available to each priority level"),
		upper:       gauge("upper_limit_seats", "Configured upper bound on number of execution seats available to each priority level"),
		limit:       gauge("current_limit_seats", "current derived number of execution seats available to each priority level"),
		held:        now("current_executing_seats", "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem"),
		running:     now("current_executing_requests", "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem"),
		queued:      now("current_inqueue_requests", "Number of requests currently pending in queues of the API Priority and Fairness subsystem"),
		queuedSeats: now("current_inqueue_seats", "Number of seats currently pending in queues of the API Priority and Fairness subsystem"),
	}
}

func (m *metrics) of(level, schema string) schemaMetrics {
	return schemaMetrics{level: level, schema: schema, all: m,
		dispatched:   m.dispatched.WithLabelValues(level, schema),
		waited:       m.waited.WithLabelValues(level, schema, "true"),
		waitedInVain: lazily(func() prometheus.Observer { return m.waited.WithLabelValues(level, schema, "false") }),
		ran:          m.ran.WithLabelValues(level, schema),
		seats:        m.seats.WithLabelValues(level, schema),
		running:      m.running.WithLabelValues(level, schema),
		held:         m.held.WithLabelValues(level, schema),
		queued:       m.queued.WithLabelValues(level, schema),
		queuedSeats:  m.queuedSeats.WithLabelValues(level, schema),
	}
}

// lazily makes an observer, and so its series, on first use.
func lazily(make func() prometheus.Observer) prometheus.Observer {
	made := sync.OnceValue(make)
	return prometheus.ObserverFunc(func(v float64) { made().Observe(v) })
}

func (s *schemaMetrics) refusedFor(reason error) prometheus.Counter {
	return s.all.rejected.WithLabelValues(s.level, s.schema, reason.Error())
}

// forget drops the series of schemas that are no more.
func (m *metrics) forget(old, next *plan) {
	kept := map[[2]string]bool{}
	for _, s := range next.schemas {
		kept[[2]string{s.level.name, s.name}] = true
	}
	for _, s := range old.schemas {
		if kept[[2]string{s.level.name, s.name}] {
			continue
		}
		labels := prometheus.Labels{"priority_level": s.level.name, "flow_schema": s.name}
		m.dispatched.DeletePartialMatch(labels)
		m.rejected.DeletePartialMatch(labels)
		m.waited.DeletePartialMatch(labels)
		m.ran.DeletePartialMatch(labels)
		m.seats.DeletePartialMatch(labels)
		for _, v := range []*prometheus.GaugeVec{m.running, m.held, m.queued, m.queuedSeats} {
			v.DeletePartialMatch(labels)
		}
	}
}

func (m *metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{m.dispatched, m.rejected, m.waited, m.ran, m.seats, m.running, m.held, m.queued, m.queuedSeats}
}

// Describe implements prometheus.Collector for the metrics of the order.
func (o *Order) Describe(c chan<- *prometheus.Desc) {
	m := o.metrics
	for _, v := range m.vectors() {
		v.Describe(c)
	}
	for _, d := range []*prometheus.Desc{m.nominal, m.lower, m.upper, m.limit} {
		c <- d
	}
}

// Collect implements prometheus.Collector for the metrics of the order.
func (o *Order) Collect(c chan<- prometheus.Metric) {
	m := o.metrics
	for _, v := range m.vectors() {
		v.Collect(c)
	}
	for name, l := range o.plan.Load().levels {
		l.mu.Lock()
		values := map[*prometheus.Desc]int{m.nominal: l.nominal, m.lower: l.lower, m.upper: l.upper, m.limit: l.limit}
		l.mu.Unlock()
		for desc, v := range values {
			c <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(v), name)
		}
	}
}
