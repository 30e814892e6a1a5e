package server

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
)

// Probes counts the results of probes, for /metrics/probes. It may be used from
// any goroutine.
type Probes struct {
	registry *prometheus.Registry
	total    *prometheus.CounterVec
}

// NewProbes has counted nothing yet.
func NewProbes() *Probes {
	p := &Probes{registry: prometheus.NewRegistry(), total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "prober_probe_total",
		Help: "Cumulative number of a liveness, readiness or startup probe for a container by result.",
	}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"})}
	p.registry.MustRegister(p.total)
	return p
}

// Count adds one result: successful, failed or unknown; kind is Liveness,
// Readiness or Startup.
func (p *Probes) Count(pod *corev1.Pod, container, kind, result string) {
	p.total.WithLabelValues(kind, result, container, pod.Name, pod.Namespace, string(pod.UID)).Inc()
}

// Forget drops a pod's numbers.
func (p *Probes) Forget(uid string) { p.total.DeletePartialMatch(prometheus.Labels{"pod_uid": uid}) }

func (p *Probes) handler() http.HandlerFunc {
	return promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}).ServeHTTP
}
