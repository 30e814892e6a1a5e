package impersonate

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are upstream's apiserver_impersonation_*, by mode and decision.
type metrics struct {
	attempts, asks          *prometheus.CounterVec
	attemptSeconds, askSecs *prometheus.HistogramVec
}

func newMetrics() *metrics {
	const prefix = "apiserver_impersonation_"
	labels := []string{"mode", "decision"}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, labels)
	}
	return &metrics{
		attempts:       counter("attempts_total", "Total number of impersonation attempts split by mode and decision."),
		attemptSeconds: histogram("attempts_duration_seconds", "Latency of impersonation attempts in seconds split by mode and decision."),
		asks:           counter("authorization_attempts_total", "Total number of authorization checks made by the impersonation handler split by mode and decision."),
		askSecs:        histogram("authorization_attempts_duration_seconds", "Latency of authorization checks made by the impersonation handler in seconds split by mode and decision."),
	}
}

// modeOf is a mode's label, by its constraint.
func modeOf(constraint string) string {
	if constraint == "" {
		return "legacy"
	}
	return strings.TrimPrefix(constraint, "impersonate:")
}

func (m *metrics) attempt(mode string, allowed bool, took time.Duration) {
	count(m.attempts, m.attemptSeconds, mode, allowed, took)
}

func (m *metrics) asked(mode string, allowed bool, took time.Duration) {
	count(m.asks, m.askSecs, mode, allowed, took)
}

func count(c *prometheus.CounterVec, h *prometheus.HistogramVec, mode string, allowed bool, took time.Duration) {
	decision := "denied"
	if allowed {
		decision = "allowed"
	}
	c.WithLabelValues(mode, decision).Inc()
	h.WithLabelValues(mode, decision).Observe(took.Seconds())
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.attempts, m.attemptSeconds, m.asks, m.askSecs}
}

// Describe implements prometheus.Collector.
func (g *Gate) Describe(c chan<- *prometheus.Desc) {
	for _, one := range g.metrics.all() {
		one.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (g *Gate) Collect(c chan<- prometheus.Metric) {
	for _, one := range g.metrics.all() {
		one.Collect(c)
	}
}
