package server

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
)

// Probes counts the results of probes, for /metrics/probes. It may be used from
// any goroutine.
type Probes struct {
	registry *prometheus.Registry
	total    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// NewProbes has counted nothing yet.
func NewProbes() *Probes {
	p := &Probes{registry: prometheus.NewRegistry(), total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "prober_probe_total",
		Help: "Cumulative number of a liveness, readiness or startup probe for a container by result.",
	}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}), seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "prober_probe_duration_seconds", Help: "Duration in seconds for a probe response.", Buckets: prometheus.DefBuckets,
	}, []string{"probe_type", "container", "pod", "namespace"})}
	p.registry.MustRegister(p.total, p.seconds)
	return p
}

// Asked is one question to a container.
type Asked struct {
	// Kind is Liveness, Readiness or Startup; Result successful, failed or unknown.
	Container, Kind, Result string
	Took                    time.Duration
}

// Count adds one question to a pod's container. As upstream, times are of those that
// did not fail.
func (p *Probes) Count(pod *corev1.Pod, a Asked) {
	p.total.WithLabelValues(a.Kind, a.Result, a.Container, pod.Name, pod.Namespace, string(pod.UID)).Inc()
	if a.Result != "failed" {
		p.seconds.WithLabelValues(a.Kind, a.Container, pod.Name, pod.Namespace).Observe(a.Took.Seconds())
	}
}

// Forget drops a pod's numbers.
func (p *Probes) Forget(pod *corev1.Pod) {
	p.total.DeletePartialMatch(prometheus.Labels{"pod_uid": string(pod.UID)})
	p.seconds.DeletePartialMatch(prometheus.Labels{"pod": pod.Name, "namespace": pod.Namespace})
}

// Collectors are what /metrics/probes has.
func (p *Probes) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.total, p.seconds}
}

func (p *Probes) handler() http.HandlerFunc {
	return promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}).ServeHTTP
}
