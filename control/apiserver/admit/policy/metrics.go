package policy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/control/apiserver/cel"
)

// metrics count what policies decide, under upstream's names. Policies are named by
// whoever may configure them, so that clients cannot make series.
type metrics struct {
	checks, changes             *prometheus.CounterVec
	checkSeconds, changeSeconds *prometheus.HistogramVec
}

func newMetrics() *metrics {
	const validating, mutating = "apiserver_validating_admission_policy_", "apiserver_mutating_admission_policy_"
	buckets := []float64{0.0000005, 0.001, 0.01, 0.1, 1.0}
	judged, changed := []string{"policy", "policy_binding", "error_type", "enforcement_action"}, []string{"policy", "policy_binding", "error_type"}
	return &metrics{
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: validating + "check_total",
			Help: "Validations by admission policies that refused, warned, were written down or failed."}, judged),
		checkSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: validating + "check_duration_seconds",
			Help: "How long single validations took.", Buckets: buckets}, judged),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: mutating + "check_total",
			Help: "Mutations by admission policies."}, changed),
		changeSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: mutating + "check_duration_seconds",
			Help: "How long single mutations took.", Buckets: buckets}, changed),
	}
}

// Describe implements prometheus.Collector.
func (p *Policies) Describe(c chan<- *prometheus.Desc) {
	p.metrics.checks.Describe(c)
	p.metrics.checkSeconds.Describe(c)
	p.metrics.changes.Describe(c)
	p.metrics.changeSeconds.Describe(c)
}

// Collect implements prometheus.Collector.
func (p *Policies) Collect(c chan<- prometheus.Metric) {
	p.metrics.checks.Collect(c)
	p.metrics.checkSeconds.Collect(c)
	p.metrics.changes.Collect(c)
	p.metrics.changeSeconds.Collect(c)
}

// judged counts one validation and what came of it: allow, deny, audit or warn.
func (m *metrics) judged(policy, binding string, d decision, action string) {
	labels := []string{policy, binding, cel.Class(d.cause), action}
	m.checks.WithLabelValues(labels...).Inc()
	m.checkSeconds.WithLabelValues(labels...).Observe(d.took.Seconds())
}

// changed counts one mutation.
func (m *metrics) changed(policy, binding string, took time.Duration, err error) {
	labels := []string{policy, binding, cel.Class(err)}
	m.changes.WithLabelValues(labels...).Inc()
	m.changeSeconds.WithLabelValues(labels...).Observe(took.Seconds())
}
