package audit

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// levels in the order in which they are counted.
var levels = [...]Level{None, Metadata, Request, RequestResponse}

// counts of a Trail.
type counts struct {
	events  atomic.Uint64
	byLevel [len(levels)]atomic.Uint64
}

func (c *counts) level(l Level) { c.byLevel[l.rank()].Add(1) }

// Upstream's apiserver_audit_*.
var (
	eventsDesc   = prometheus.NewDesc("apiserver_audit_event_total", "Counter of audit events generated and sent to the audit backend.", nil, nil)
	errorsDesc   = prometheus.NewDesc("apiserver_audit_error_total", "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.", []string{"plugin"}, nil)
	levelsDesc   = prometheus.NewDesc("apiserver_audit_level_total", "Counter of policy levels for audit events (1 per request).", []string{"level"}, nil)
	rejectedDesc = prometheus.NewDesc("apiserver_audit_requests_rejected_total", "Counter of apiserver requests rejected due to an error in audit logging backend.", nil, nil)
)

// Describe implements prometheus.Collector.
func (t *Trail) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{eventsDesc, errorsDesc, levelsDesc, rejectedDesc} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (t *Trail) Collect(c chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counter(eventsDesc, t.counts.events.Load())
	counter(rejectedDesc, 0) // no request waits for its event: none is refused for it
	for i, l := range levels {
		if n := t.counts.byLevel[i].Load(); n > 0 {
			counter(levelsDesc, n, string(l))
		}
	}
	for _, s := range t.Sinks {
		if w, ok := s.(*Webhook); ok {
			counter(errorsDesc, uint64(w.failed.Load()), "webhook") //nolint:gosec // it only grows
		}
	}
}
