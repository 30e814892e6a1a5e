package authn

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// tokenCounts are upstream's serviceaccount_*: which tokens are used.
type tokenCounts struct {
	legacy, stale, valid, manual, auto, invalid prometheus.Counter
}

func newTokenCounts() *tokenCounts {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "serviceaccount_" + name, Help: help})
	}
	return &tokenCounts{
		legacy:  counter("legacy_tokens_total", "Cumulative legacy service account tokens used"),
		stale:   counter("stale_tokens_total", "Cumulative stale projected service account tokens used"),
		valid:   counter("valid_tokens_total", "Cumulative valid projected service account tokens used"),
		manual:  counter("legacy_manual_token_uses_total", "Cumulative manually created legacy tokens used"),
		auto:    counter("legacy_auto_token_uses_total", "Cumulative auto-generated legacy tokens used"),
		invalid: counter("invalid_legacy_auto_token_uses_total", "Cumulative invalid auto-generated legacy tokens used"),
	}
}

func (c *tokenCounts) all() []prometheus.Collector {
	return []prometheus.Collector{c.legacy, c.stale, c.valid, c.manual, c.auto, c.invalid}
}

// memoryCounts are upstream's authentication_token_cache_*: how often a token had
// been verified before.
type memoryCounts struct {
	hit, miss         prometheus.Counter
	hitSecs, missSecs prometheus.Observer
	fetched, failed   prometheus.Counter
	asking            atomic.Int64
	requests, fetches *prometheus.CounterVec
	seconds           *prometheus.HistogramVec
	inFlight          prometheus.GaugeFunc
}

func newMemoryCounts() *memoryCounts {
	const prefix = "authentication_token_cache_"
	c := &memoryCounts{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "request_total"}, []string{"status"}),
		fetches:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "fetch_total"}, []string{"status"}),
		seconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + "request_duration_seconds", Buckets: prometheus.DefBuckets}, []string{"status"}),
	}
	c.inFlight = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + "active_fetch_count", ConstLabels: prometheus.Labels{"status": "in_flight"}},
		func() float64 { return float64(c.asking.Load()) })
	c.hit, c.miss = c.requests.WithLabelValues("hit"), c.requests.WithLabelValues("miss")
	c.hitSecs, c.missSecs = c.seconds.WithLabelValues("hit"), c.seconds.WithLabelValues("miss")
	c.fetched, c.failed = c.fetches.WithLabelValues("ok"), c.fetches.WithLabelValues("error")
	return c
}

// recalled counts a token that had been verified before.
func (c *memoryCounts) recalled(began time.Time) {
	c.hit.Inc()
	c.hitSecs.Observe(time.Since(began).Seconds())
}

// fetching counts a token that is verified now, until the function returned is
// called with what came of it.
func (c *memoryCounts) fetching(began time.Time) func(error) {
	c.asking.Add(1)
	return func(err error) {
		c.asking.Add(-1)
		c.miss.Inc()
		c.missSecs.Observe(time.Since(began).Seconds())
		if err != nil {
			c.failed.Inc()
			return
		}
		c.fetched.Inc()
	}
}

// parts are all that is counted.
func (a *Authenticator) parts() []prometheus.Collector {
	all := []prometheus.Collector{a.counts.requests, a.counts.fetches, a.counts.seconds, a.counts.inFlight}
	if a.cfg.Tokens != nil {
		all = append(all, a.cfg.Tokens.counts.all()...)
	}
	return all
}

// Describe implements prometheus.Collector.
func (a *Authenticator) Describe(c chan<- *prometheus.Desc) {
	for _, one := range a.parts() {
		one.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (a *Authenticator) Collect(c chan<- prometheus.Metric) {
	for _, one := range a.parts() {
		one.Collect(c)
	}
}
