package measure

// Zones notes how many nodes of each zone are ready and how many are not. A zone that
// has no nodes any more is well.
func (m *Metrics) Zones(ready, lost map[string]int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, counts := range []map[string]int{ready, lost} {
		for zone := range counts {
			if !m.zones[zone] {
				m.zones[zone] = true
				m.evictions.WithLabelValues(zone).Add(0)
			}
		}
	}
	for zone := range m.zones {
		all, well := ready[zone]+lost[zone], 100.0
		if all > 0 {
			well = float64(100*ready[zone]) / float64(all)
		}
		m.zoneSize.WithLabelValues(zone).Set(float64(all))
		m.zoneHealth.WithLabelValues(zone).Set(well)
		m.zoneUnhealthy.WithLabelValues(zone).Set(float64(lost[zone]))
	}
}

// NodeEvicted notes that the pods of a node were told to go.
func (m *Metrics) NodeEvicted(zone string) {
	if m != nil {
		m.evictions.WithLabelValues(zone).Inc()
	}
}
