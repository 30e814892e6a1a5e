package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/node/agent/usage"
)

// requests counts what is asked of the kubelet API, and what measuring costs.
type requests struct {
	total, upgraded *prometheus.CounterVec
	seconds, walks  *prometheus.HistogramVec
	now             *prometheus.GaugeVec
	provider        *prometheus.GaugeVec
}

// longRunning are the paths whose requests last as long as somebody wants.
var longRunning = map[string]bool{"exec": true, "attach": true, "portforward": true, "debug": true}

func newRequests() requests {
	labels := []string{"method", "path", "server_type", "long_running"}
	r := requests{
		total:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_http_requests_total", Help: "Requests to the kubelet API."}, labels),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_http_requests_duration_seconds", Help: "Seconds that requests to the kubelet API took.", Buckets: prometheus.DefBuckets}, labels),
		now:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_http_inflight_requests", Help: "Requests to the kubelet API that are being answered."}, labels),
		upgraded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_websocket_streaming_requests_total", Help: "Requests for streams over WebSockets."}, []string{"subresource"}),
		walks:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kubelet_volume_metric_collection_duration_seconds", Help: "Seconds that it took to measure a volume, by how that was done.", Buckets: prometheus.DefBuckets}, []string{"metric_source"}),
		provider: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_metrics_provider", Help: "Who measures containers: the engine, over the CRI."}, []string{"provider"}),
	}
	r.provider.WithLabelValues("cri").Set(1)
	return r
}

func (r requests) all() []prometheus.Collector {
	return []prometheus.Collector{r.total, r.seconds, r.now, r.upgraded, r.walks, r.provider}
}

// counted counts the requests of a pattern; as upstream, by the first part of its path,
// or two for metrics.
func (s *Server) counted(pattern string, h http.HandlerFunc) http.HandlerFunc {
	parts := strings.Split(strings.Trim(pattern, "/"), "/")
	path := parts[0]
	if path == "metrics" && len(parts) > 1 {
		path += "/" + parts[1]
	}
	long := longRunning[strings.ToLower(path)]
	return func(w http.ResponseWriter, r *http.Request) {
		labels := []string{r.Method, path, "readwrite", strconv.FormatBool(long)}
		begin, now := time.Now(), s.tally.now.WithLabelValues(labels...)
		s.tally.total.WithLabelValues(labels...).Inc()
		if long && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			s.tally.upgraded.WithLabelValues(strings.ToLower(path)).Inc()
		}
		now.Inc()
		defer func() {
			now.Dec()
			s.tally.seconds.WithLabelValues(labels...).Observe(time.Since(begin).Seconds())
		}()
		h(w, r)
	}
}

// walk measures a directory, and how long that takes.
func (s *Server) walk(dir string) usage.Disk {
	begin := time.Now()
	used := usage.Walk(dir)
	s.tally.walks.WithLabelValues("du").Observe(time.Since(begin).Seconds())
	return used
}
