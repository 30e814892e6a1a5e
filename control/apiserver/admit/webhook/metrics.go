package webhook

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// The sorts of webhooks, as upstream's metrics call them.
const (
	stepMutate = "admit"
	stepJudge  = "validating"
)

// maxCode bounds the codes that metrics tell apart: webhooks may answer any number.
const maxCode = 600

// metrics count calls under upstream's names. Webhooks are named by whoever may
// configure them, so that clients cannot make series.
type metrics struct {
	seconds    *prometheus.HistogramVec
	requests   *prometheus.CounterVec
	rejections *prometheus.CounterVec
	failedOpen *prometheus.CounterVec
}

func newMetrics() *metrics {
	const prefix = "apiserver_admission_webhook_"
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	return &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "admission_duration_seconds",
			Help:    "How long admission webhooks take, by webhook, operation and type (validating or admit).",
			Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10, 25}}, []string{"name", "type", "operation", "rejected"}),
		requests: counter("request_total", "Calls of admission webhooks, by the code that they ended with.",
			"name", "type", "operation", "code", "rejected"),
		rejections: counter("rejection_count", "Writes that webhooks refused, or that failed for a webhook (error_type), by the webhook's code.",
			"name", "type", "operation", "error_type", "rejection_code"),
		failedOpen: counter("fail_open_count", "Calls that failed while the write went on.", "name", "type"),
	}
}

// Describe implements prometheus.Collector.
func (w *Webhooks) Describe(c chan<- *prometheus.Desc) {
	w.metrics.seconds.Describe(c)
	w.metrics.requests.Describe(c)
	w.metrics.rejections.Describe(c)
	w.metrics.failedOpen.Describe(c)
}

// Collect implements prometheus.Collector.
func (w *Webhooks) Collect(c chan<- prometheus.Metric) {
	w.metrics.seconds.Collect(c)
	w.metrics.requests.Collect(c)
	w.metrics.rejections.Collect(c)
	w.metrics.failedOpen.Collect(c)
}

// called counts one call and how it ended.
func (m *metrics) called(h *hook, step string, operation resource.Operation, took time.Duration, err error, ignored bool) {
	kind, code := "", 200
	var failed *failure
	var no refusal
	switch {
	case err == nil:
	case errors.As(err, &failed):
		kind, code = "calling_webhook_error", failed.code()
	case errors.As(err, &no):
		kind, code = "no_error", int(no.ErrStatus.Code)
	default:
		kind, code = "apiserver_internal_error", 0
	}
	code = min(code, maxCode)
	rejected := strconv.FormatBool(err != nil && !ignored)
	m.seconds.WithLabelValues(h.name, step, string(operation), rejected).Observe(took.Seconds())
	m.requests.WithLabelValues(h.name, step, string(operation), strconv.Itoa(code), rejected).Inc()
	switch {
	case err == nil, errors.Is(err, context.Canceled) && failed != nil: // whoever goes away says nothing of a webhook
	case ignored:
		m.failedOpen.WithLabelValues(h.name, step).Inc()
	default:
		m.rejections.WithLabelValues(h.name, step, string(operation), kind, strconv.Itoa(code)).Inc()
	}
}

// code is what upstream's metrics call a failure.
func (f *failure) code() int {
	var status apierrors.APIStatus
	if errors.As(f.cause, &status) {
		return int(status.Status().Code)
	}
	return 503
}
