package measure

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Mirrored is what a look at the slices that mirror one Endpoints came to.
type Mirrored struct {
	// Endpoints there are now, in so many Slices, which is as few as can be.
	Endpoints, Slices int
	// Added, Updated and Removed are endpoints; Skipped are addresses that are not
	// mirrored.
	Added, Updated, Removed, Skipped int
	Began                            time.Time
}

// mirrors is the metrics of the slices that mirror Endpoints.
type mirrors struct {
	added, updated, removed, skipped, seconds prometheus.Histogram
	desired, actual, ideal                    prometheus.Gauge
	changes                                   *prometheus.CounterVec

	mu                sync.Mutex
	held              map[string]Mirrored // by Endpoints
	endpoints, slices int                 // sums over held
}

func newMirrors() *mirrors {
	const name = "endpoint_slice_mirroring_controller_"
	one := func(what, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name + what, Help: help, Buckets: buckets})
	}
	level := func(what, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name + what, Help: help})
	}
	sizes := prometheus.ExponentialBuckets(2, 2, 15)
	return &mirrors{
		added:   one("endpoints_added_per_sync", "Number of endpoints added on each Endpoints sync", sizes),
		updated: one("endpoints_updated_per_sync", "Number of endpoints updated on each Endpoints sync", sizes),
		removed: one("endpoints_removed_per_sync", "Number of endpoints removed on each Endpoints sync", sizes),
		skipped: one("addresses_skipped_per_sync", "Number of addresses that were left out on each Endpoints sync: they are invalid, or too many", sizes),
		seconds: one("endpoints_sync_duration", "Seconds that a look at an Endpoints took", prometheus.ExponentialBuckets(0.001, 2, 15)),
		desired: level("endpoints_desired", "Number of endpoints desired"),
		actual:  level("num_endpoint_slices", "Number of EndpointSlices"),
		ideal:   level("desired_endpoint_slices", "Number of EndpointSlices that would exist with perfect endpoint allocation"),
		changes: counter(name+"changes", "Number of EndpointSlice changes", "operation"),
		held:    map[string]Mirrored{},
	}
}

func (s *mirrors) all() []prometheus.Collector {
	return []prometheus.Collector{s.added, s.updated, s.removed, s.skipped, s.seconds, s.desired, s.actual, s.ideal, s.changes}
}

// put replaces what an Endpoints has; the zero value is nothing.
func (s *mirrors) put(endpoints string, now Mirrored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.held[endpoints]
	s.endpoints += now.Endpoints - was.Endpoints
	s.slices += now.Slices - was.Slices
	if delete(s.held, endpoints); now.Slices > 0 {
		s.held[endpoints] = now
	}
	s.desired.Set(float64(s.endpoints))
	s.actual.Set(float64(s.slices))
	s.ideal.Set(float64(s.slices))
}

// Mirrored notes a look at the slices of an Endpoints.
func (m *Metrics) Mirrored(endpoints string, l Mirrored) {
	if m == nil {
		return
	}
	m.mirrors.added.Observe(float64(l.Added))
	m.mirrors.updated.Observe(float64(l.Updated))
	m.mirrors.removed.Observe(float64(l.Removed))
	m.mirrors.skipped.Observe(float64(l.Skipped))
	m.mirrors.seconds.Observe(since(l.Began))
	m.mirrors.put(endpoints, l)
}

// MirrorsGone notes that an Endpoints is mirrored no more.
func (m *Metrics) MirrorsGone(endpoints string) {
	if m != nil {
		m.mirrors.put(endpoints, Mirrored{})
	}
}

// MirrorChanged notes a change of a slice that mirrors: "create", "update" or "delete".
func (m *Metrics) MirrorChanged(operation string) {
	if m != nil {
		m.mirrors.changes.WithLabelValues(operation).Inc()
	}
}
