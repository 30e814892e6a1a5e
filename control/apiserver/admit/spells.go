package admit

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// bounds are the histograms' buckets, upstream's.
var bounds = [...]time.Duration{5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond}

// spells is a histogram of how long something took, of which an observation is two
// additions: there are some thirty in each write.
type spells struct {
	counts [len(bounds) + 1]atomic.Uint64 // the last one of what no bucket holds
	nanos  atomic.Int64
}

func (s *spells) observe(took time.Duration) {
	i := 0
	for i < len(bounds) && took > bounds[i] {
		i++
	}
	s.counts[i].Add(1)
	s.nanos.Add(int64(took))
}

// metric is what is told of it; nil where there was nothing.
func (s *spells) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	sum, buckets, count := s.nanos.Load(), make(map[float64]uint64, len(bounds)), uint64(0)
	for i := range s.counts {
		count += s.counts[i].Load()
		if i < len(bounds) {
			buckets[bounds[i].Seconds()] = count
		}
	}
	if count == 0 {
		return nil
	}
	return prometheus.MustNewConstHistogram(desc, count, time.Duration(sum).Seconds(), buckets, labels...)
}
