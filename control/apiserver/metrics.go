package apiserver

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// component is who upstream's metrics say has served.
const component = "apiserver"

// metrics count requests under upstream's names. Counting costs a few hundred
// nanoseconds a request: the handles of each series are kept. What is a gauge is
// gathered when it is asked for.
type metrics struct {
	http.Handler
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	sizes    *prometheus.HistogramVec
	series   sync.Map // of series, by seriesKey
	events   *prometheus.CounterVec

	reading, writing atomic.Int64
	mu               sync.Mutex
	long             map[seriesKey]int // requests that stay
	longNow, kindNow *prometheus.Desc
	objects          *prometheus.Desc
	server           *Server // nil until the server is made
}

// seriesKey is what tells requests apart; clients cannot make new ones, for only
// known verbs and resources are in it.
type seriesKey struct{ verb, group, version, resource, sub, scope, dryRun string }

// series are the handles of one key.
type series struct {
	seconds, sizes prometheus.Observer
	codes          sync.Map // of prometheus.Counter, by int
}

var requestLabels = []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}

func newMetrics() *metrics {
	timed := append([]string{"dry_run"}, requestLabels...)
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_request_total",
			Help: "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code."},
			append([]string{"code"}, timed...)),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_request_duration_seconds",
			Help:    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}}, timed),
		sizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_response_sizes",
			Help:    "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
			Buckets: prometheus.ExponentialBuckets(1000, 10, 7)}, requestLabels),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_watch_events_total",
			Help: "Number of events sent in watch clients"}, []string{"group", "version", "resource"}),
		long:    map[seriesKey]int{},
		longNow: prometheus.NewDesc("apiserver_longrunning_requests", "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.", requestLabels, nil),
		kindNow: prometheus.NewDesc("apiserver_current_inflight_requests", "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.", []string{"request_kind"}, nil),
		objects: prometheus.NewDesc("apiserver_resource_objects", "Number of stored objects at the time of last check split by kind.", []string{"group", "resource"}, nil),
	}
	m.registry = prometheus.NewRegistry()
	m.registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.Handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return m
}

func (m *metrics) of(k seriesKey) *series {
	if s, ok := m.series.Load(k); ok {
		return s.(*series)
	}
	labels := []string{k.verb, k.group, k.version, k.resource, k.sub, k.scope, component}
	s, _ := m.series.LoadOrStore(k, &series{
		seconds: m.seconds.WithLabelValues(append([]string{k.dryRun}, labels...)...), sizes: m.sizes.WithLabelValues(labels...)})
	return s.(*series)
}

func (m *metrics) count(k seriesKey, code int) *series {
	s := m.of(k)
	c, ok := s.codes.Load(code)
	if !ok {
		c, _ = s.codes.LoadOrStore(code, m.requests.WithLabelValues(strconv.Itoa(code), k.dryRun, k.verb, k.group, k.version, k.resource, k.sub, k.scope, component))
	}
	c.(prometheus.Counter).Inc()
	return s
}

// delivered counts events that were sent to a watcher.
func (m *metrics) delivered(of schema.GroupVersionResource, events int) {
	m.events.WithLabelValues(of.Group, of.Version, of.Resource).Add(float64(events))
}

// local counts a request of a component of this process.
func (m *metrics) local(e resource.AuditEvent) {
	m.count(keyOf(resource.Asked{Verb: e.Request.Verb, Target: e.Request.Target, Resource: true}, ""), e.Code)
}

// verbs are upstream's words for ours.
var verbs = map[string]string{"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH",
	"delete": "DELETE", "deletecollection": "DELETECOLLECTION", "post": "POST", "put": "PUT", "head": "GET"}

func keyOf(a resource.Asked, dryRun string) seriesKey {
	verb, ok := verbs[a.Verb]
	if !ok {
		verb = "other"
	}
	k := seriesKey{verb: verb, dryRun: dryRun}
	if !a.Resource {
		return k
	}
	t := a.Target
	k.group, k.version, k.resource, k.sub, k.scope = t.Resource.Group, t.Resource.Version, t.Resource.Resource, t.Subresource, "cluster"
	switch {
	case t.Name != "":
		k.scope = "resource"
	case t.Namespace != "":
		k.scope = "namespace"
	}
	return k
}

// measured counts and times what is asked of next over the wire.
func (s *Server) measured(next http.Handler) http.Handler {
	m := s.metrics
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		a := s.resources.Asks(r)
		if a.Resource && !s.known(a) {
			a = resource.Asked{Verb: a.Verb} // a name that a client has made up makes no series
		}
		dryRun := ""
		if r.URL.RawQuery != "" && r.Method != http.MethodGet && r.URL.Query().Get("dryRun") != "" {
			dryRun = "All"
		}
		k := keyOf(a, dryRun)
		if a.Connection {
			k.verb = "CONNECT"
		}
		seen := &measuring{ResponseWriter: w, code: http.StatusOK}
		defer m.enter(a, k)()
		defer func() {
			one := m.count(k, seen.code)
			if a.Verb != "watch" && !a.Connection {
				one.seconds.Observe(time.Since(begin).Seconds())
				one.sizes.Observe(float64(seen.bytes))
			}
		}()
		next.ServeHTTP(seen, r)
	})
}

// known says whether a resource and its subresource are served here.
func (s *Server) known(a resource.Asked) bool {
	k, ok := s.resources.Kind(a.Target.Resource)
	if !ok || a.Target.Subresource == "" {
		return ok
	}
	for _, sub := range k.Subresources {
		if sub.Name == a.Target.Subresource {
			return true
		}
	}
	return a.Connection
}

// enter counts a request under way until the function that it returns is called.
func (m *metrics) enter(a resource.Asked, k seriesKey) (leave func()) {
	if a.Verb == "watch" || a.Connection {
		m.mu.Lock()
		m.long[k]++
		m.mu.Unlock()
		return func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.long[k]--; m.long[k] <= 0 {
				delete(m.long, k)
			}
		}
	}
	n := &m.writing
	if a.Verb == "get" || a.Verb == "list" {
		n = &m.reading
	}
	n.Add(1)
	return func() { n.Add(-1) }
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(c chan<- *prometheus.Desc) {
	m.requests.Describe(c)
	m.seconds.Describe(c)
	m.sizes.Describe(c)
	m.events.Describe(c)
	c <- m.longNow
	c <- m.kindNow
	c <- m.objects
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(c chan<- prometheus.Metric) {
	m.requests.Collect(c)
	m.seconds.Collect(c)
	m.sizes.Collect(c)
	m.events.Collect(c)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.kindNow, float64(m.reading.Load()), "readOnly")
	gauge(m.kindNow, float64(m.writing.Load()), "mutating")
	sums := map[seriesKey]int{}
	m.mu.Lock()
	for k, n := range m.long {
		k.dryRun = ""
		sums[k] += n
	}
	m.mu.Unlock()
	for k, n := range sums {
		gauge(m.longNow, float64(n), k.verb, k.group, k.version, k.resource, k.sub, k.scope, component)
	}
	if m.server == nil {
		return
	}
	told := map[[2]string]bool{}
	for _, k := range m.server.resources.Kinds() {
		name := [2]string{k.GVK.Group, k.Resource}
		if n, _, ok := m.server.resources.Stored(k.GVR()); ok && !told[name] && k.View == nil {
			told[name] = true
			gauge(m.objects, float64(n), name[0], name[1])
		}
	}
}

// measuring sees an answer's code and size go by.
type measuring struct {
	http.ResponseWriter
	code  int
	bytes int64
}

func (w *measuring) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

func (w *measuring) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Flush is for handlers that stream.
func (w *measuring) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap lets http.ResponseController reach deadlines and hijacking.
func (w *measuring) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// counted notes a request of this process, which no wire has measured.
func (s *Server) counted(ctx context.Context, e resource.AuditEvent) {
	if _, wire := originOf(ctx); !wire {
		s.metrics.local(e)
	}
}
