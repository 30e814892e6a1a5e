package measure

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Sliced is what a look at the endpoint slices of a service came to, of one address
// type.
type Sliced struct {
	// Endpoints there are, in so many Slices, where Ideal would be enough.
	Endpoints, Slices, Ideal int
	// Added and Removed are endpoints, Changed are slices: made, changed or removed.
	Added, Removed, Changed int
}

// ledger is the metrics of the slices of all services.
type ledger struct {
	added, removed          prometheus.Histogram
	desired, actual, ideal  prometheus.Gauge
	changes, syncs          *prometheus.CounterVec
	changed                 *prometheus.HistogramVec
	services                *prometheus.GaugeVec
	mu                      sync.Mutex
	held                    map[string]held // by service
	endpoints, have, enough int             // sums over held
}

// held is what one service has.
type held struct {
	endpoints, slices, ideal int
	distribution             string
}

func newLedger() *ledger {
	const name = "endpoint_slice_controller_"
	sizes := prometheus.ExponentialBuckets(2, 2, 15)
	one := func(what, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name + what, Help: help, Buckets: sizes})
	}
	level := func(what, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name + what, Help: help})
	}
	return &ledger{
		added:    one("endpoints_added_per_sync", "Number of endpoints added on each Service sync"),
		removed:  one("endpoints_removed_per_sync", "Number of endpoints removed on each Service sync"),
		desired:  level("endpoints_desired", "Number of endpoints desired"),
		actual:   level("num_endpoint_slices", "Number of EndpointSlices"),
		ideal:    level("desired_endpoint_slices", "Number of EndpointSlices that would exist with perfect endpoint allocation"),
		changes:  counter(name+"changes", "Number of EndpointSlice changes", "operation"),
		syncs:    counter(name+"syncs", "Number of EndpointSlice syncs", "result"),
		changed:  histogram(name+"endpointslices_changed_per_sync", "Number of EndpointSlices changed on each Service sync", prometheus.DefBuckets, "topology", "traffic_distribution"),
		services: gauge(name+"services_count_by_traffic_distribution", "Number of Services using some specific trafficDistribution", "traffic_distribution"),
		held:     map[string]held{},
	}
}

func (s *ledger) all() []prometheus.Collector {
	return []prometheus.Collector{s.added, s.removed, s.desired, s.actual, s.ideal, s.changes, s.syncs, s.changed, s.services}
}

// put replaces what a service has, nil for one that is gone.
func (s *ledger) put(service string, now *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, known := s.held[service]
	if !known && now == nil {
		return
	}
	s.add(was, -1)
	if known && was.distribution != "" {
		s.services.WithLabelValues(was.distribution).Dec()
	}
	delete(s.held, service)
	if now != nil {
		s.held[service] = *now
		s.add(*now, 1)
		if now.distribution != "" {
			s.services.WithLabelValues(now.distribution).Inc()
		}
	}
	s.desired.Set(float64(s.endpoints))
	s.actual.Set(float64(s.have))
	s.ideal.Set(float64(s.enough))
}

func (s *ledger) add(h held, sign int) {
	s.endpoints += sign * h.endpoints
	s.have += sign * h.slices
	s.enough += sign * h.ideal
}

// Sliced notes a look at the slices of a service, each element an address type; spread
// says that it is spread over zones, distribution is what it prefers, or "".
func (m *Metrics) Sliced(service string, spread bool, distribution string, looks []Sliced) {
	if m == nil {
		return
	}
	topology := "Disabled"
	if spread {
		topology = "Auto"
	}
	now := held{distribution: distribution}
	for _, l := range looks {
		m.slices.added.Observe(float64(l.Added))
		m.slices.removed.Observe(float64(l.Removed))
		m.slices.changed.WithLabelValues(topology, distribution).Observe(float64(l.Changed))
		now.endpoints, now.slices, now.ideal = now.endpoints+l.Endpoints, now.slices+l.Slices, now.ideal+max(1, l.Ideal)
	}
	m.slices.put(service, &now)
}

// SlicesGone notes that a service is gone, with its slices.
func (m *Metrics) SlicesGone(service string) {
	if m != nil {
		m.slices.put(service, nil)
	}
}

// SliceChanged notes a change of a slice: "create", "update" or "delete".
func (m *Metrics) SliceChanged(operation string) {
	if m != nil {
		m.slices.changes.WithLabelValues(operation).Inc()
	}
}

// SlicesSynced notes how a look at a service ended: "success", "error", or "stale" when
// it had to wait for its own writes.
func (m *Metrics) SlicesSynced(result string) {
	if m != nil {
		m.slices.syncs.WithLabelValues(result).Inc()
	}
}
