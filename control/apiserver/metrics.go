package apiserver

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// component is who upstream's metrics say has served.
const component = "apiserver"

// requestBuckets are upstream's for requests, to clients and to the store, in
// seconds; those of the service level have no shorter ones than 50 ms.
var requestBuckets = []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}

// metrics count what happens under upstream's names. Counting costs a few hundred
// nanoseconds a request: the handles of each series are kept. What is a gauge is
// gathered when it is asked for.
type metrics struct {
	http.Handler
	registry *prometheus.Registry
	// slis serves what health checks found, alone: cheap enough to be asked for
	// every few seconds (KEP-3466).
	slis    http.Handler
	vectors []prometheus.Collector // those below, and those of who

	requests, terminations, aborts, watchEvents *prometheus.CounterVec
	seconds, sli, sizes, watchSizes, watchLists *prometheus.HistogramVec
	clientRequests                              *prometheus.CounterVec
	clientSeconds                               *prometheus.HistogramVec
	deprecated                                  *prometheus.GaugeVec
	health                                      *prometheus.GaugeVec
	healthChecks                                *prometheus.CounterVec
	handshakes                                  prometheus.Counter
	who                                         *whoMetrics

	mu      sync.RWMutex
	series  map[seriesKey]*series
	clients map[clientKey]clientSeries
	watched map[schema.GroupVersionResource]watchSeries
	long    map[seriesKey]int // requests that stay

	reading, writing           level
	leaveReading, leaveWriting func()
	server                     *Server // nil until the server is made
}

// level is how many there are, and the most that there were since the last look.
type level struct{ now, peak atomic.Int64 }

func (l *level) enter() {
	n := l.now.Add(1)
	for peak := l.peak.Load(); n > peak && !l.peak.CompareAndSwap(peak, n); peak = l.peak.Load() {
	}
}

func (l *level) leave() { l.now.Add(-1) }

// look is the peak, which begins anew.
func (l *level) look() int64 {
	now := l.now.Load()
	return max(now, l.peak.Swap(now))
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), series: map[seriesKey]*series{}, clients: map[clientKey]clientSeries{},
		watched: map[schema.GroupVersionResource]watchSeries{}, long: map[seriesKey]int{}}
	m.leaveReading, m.leaveWriting = m.reading.leave, m.writing.leave
	m.requestVectors()
	m.otherVectors()
	m.who = newWhoMetrics(m)
	m.registry.MustRegister(m, collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.Handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	slis := prometheus.NewRegistry()
	slis.MustRegister(m.health, m.healthChecks)
	m.slis = promhttp.HandlerFor(slis, promhttp.HandlerOpts{})
	return m
}

func (m *metrics) requestVectors() {
	labels := []string{"verb", "group", "version", "resource", "subresource", "scope"}
	with := slices.Concat(labels, []string{"component"})
	dry := slices.Concat([]string{"dry_run"}, with)
	m.requests = m.counter("apiserver_request_total", "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
		append([]string{"code"}, dry...)...)
	m.seconds = m.histogram("apiserver_request_duration_seconds", "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
		requestBuckets, dry...)
	m.sli = m.histogram("apiserver_request_sli_duration_seconds", "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
		requestBuckets[2:], with...)
	m.sizes = m.histogram("apiserver_response_sizes", "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
		prometheus.ExponentialBuckets(1000, 10, 7), with...)
	m.terminations = m.counter("apiserver_request_terminations_total", "Number of requests which apiserver terminated in self-defense.", append([]string{"code"}, with...)...)
	m.aborts = m.counter("apiserver_request_aborts_total", "Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, resource, subresource and scope", labels...)
	m.deprecated = m.gauge("apiserver_requested_deprecated_apis", "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
		"group", "version", "resource", "subresource", "removed_release")
	m.watchEvents = m.counter("apiserver_watch_events_total", "Number of events sent in watch clients", "group", "version", "resource")
	m.watchLists = m.histogram("apiserver_watch_list_duration_seconds", "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
		slices.Concat(requestBuckets[2:], []float64{90, 120, 180, 300}), "group", "version", "resource", "scope")
	m.watchSizes = m.histogram("apiserver_watch_events_sizes", "Watch event size distribution in bytes", prometheus.ExponentialBuckets(1024, 2, 8), "group", "version", "resource")
}

func (m *metrics) otherVectors() {
	m.clientRequests = m.counter("rest_client_requests_total", "Number of HTTP requests, partitioned by status code, method, and host.", "code", "method", "host")
	m.clientSeconds = m.histogram("rest_client_request_duration_seconds", "Request latency in seconds. Broken down by verb, and host.",
		[]float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60}, "verb", "host")
	m.health = m.gauge("kubernetes_healthcheck", "This metric records the result of a single healthcheck.", "name", "type")
	m.healthChecks = m.counter("kubernetes_healthchecks_total", "This metric records the results of all healthcheck.", "name", "type", "status")
	m.handshakes = prometheus.NewCounter(prometheus.CounterOpts{Name: "apiserver_tls_handshake_errors_total", Help: "Number of requests dropped with 'TLS handshake error from' error"})
	m.vectors = append(m.vectors, m.handshakes)
}

func (m *metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.vectors = append(m.vectors, v)
	return v
}

func (m *metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.vectors = append(m.vectors, v)
	return v
}

func (m *metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.vectors = append(m.vectors, v)
	return v
}

// Describe implements prometheus.Collector. What is gathered is not described: it
// is checked when it is gathered.
func (m *metrics) Describe(c chan<- *prometheus.Desc) {
	for _, v := range m.vectors {
		v.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(c chan<- prometheus.Metric) {
	for _, v := range m.vectors {
		v.Collect(c)
	}
	m.gather(c)
}
