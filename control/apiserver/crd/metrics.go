package crd

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what conversion webhooks are asked, under upstream's names.
type metrics struct {
	// conversions are by definition and versions, calls by how they failed.
	conversions, calls *prometheus.HistogramVec
	requests           *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		conversions: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_crd_conversion_webhook_duration_seconds",
			Help: "CRD webhook conversion duration in seconds", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)},
			[]string{"crd_name", "from_version", "to_version", "succeeded"}),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_conversion_webhook_duration_seconds",
			Help:    "Conversion webhook request latency",
			Buckets: []float64{0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 45, 60}}, []string{"result", "failure_type"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_conversion_webhook_request_total",
			Help: "Counter for conversion webhook requests with success/failure and failure error type"}, []string{"result", "failure_type"}),
	}
}

// converted notes one question and how it ended.
func (m *metrics) converted(definition string, c conversion, took time.Duration, err error) {
	result, sort := "success", ""
	if err != nil {
		result, sort = "failure", callFailed
		var how *failed
		if errors.As(err, &how) {
			sort = how.sort
		}
	}
	m.conversions.WithLabelValues(definition, c.from.Version, c.to.Version, strconv.FormatBool(err == nil)).Observe(took.Seconds())
	m.calls.WithLabelValues(result, sort).Observe(took.Seconds())
	m.requests.WithLabelValues(result, sort).Inc()
}

// Describe implements prometheus.Collector.
func (d *Definitions) Describe(c chan<- *prometheus.Desc) {
	for _, each := range []prometheus.Collector{d.cfg.metrics.conversions, d.cfg.metrics.calls, d.cfg.metrics.requests} {
		each.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (d *Definitions) Collect(c chan<- prometheus.Metric) {
	for _, each := range []prometheus.Collector{d.cfg.metrics.conversions, d.cfg.metrics.calls, d.cfg.metrics.requests} {
		each.Collect(c)
	}
}
