package node

import (
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Rates of eviction: upstream's defaults.
const (
	// apart is the time between the evictions of two nodes of one zone.
	apart = 10 * time.Second
	// slowly is that time while a zone of a large cluster is partly disrupted;
	// in a small one nobody is evicted then.
	slowly = 100 * time.Second
	// large is how many nodes a large cluster has, at least.
	large = 51
	// disruption is the share of nodes not ready that makes a zone partly
	// disrupted, and fewNodes how many there must be at least.
	disruption = 0.55
	fewNodes   = 3
)

// state is how the cluster's nodes are, by zone.
type state struct {
	nodes  int
	ready  map[string]int
	lost   map[string]int
	cutOff bool // no node is ready anywhere
}

// zones keeps the pace of evictions.
type zones struct {
	mu     sync.Mutex
	next   map[string]time.Time // when a zone may lose its next node
	cutOff bool
}

// judge counts.
func (z *zones) judge(nodes []*corev1.Node) state {
	s := state{nodes: len(nodes), ready: map[string]int{}, lost: map[string]int{}, cutOff: len(nodes) > 0}
	for _, node := range nodes {
		if isReady(node) {
			s.ready[zoneOf(node)]++
			s.cutOff = false
		} else {
			s.lost[zoneOf(node)]++
		}
	}
	return s
}

// byKey is how many nodes are ready and not, by upstream's keys of zones.
func (s state) byKey() (ready, lost map[string]int) {
	ready, lost = map[string]int{}, map[string]int{}
	for zone, n := range s.ready {
		ready[zoneKey(zone)] = n
	}
	for zone, n := range s.lost {
		lost[zoneKey(zone)] = n
	}
	return ready, lost
}

// zoneKey is what upstream's metrics call a zone: nothing, if it has no name.
func zoneKey(zone string) string {
	if zone == "/" {
		return ""
	}
	region, name, _ := strings.Cut(zone, "/")
	return region + ":\x00:" + name
}

// recovered says, once, that the cluster is cut off no longer.
func (z *zones) recovered(s state) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	was := z.cutOff
	z.cutOff = s.cutOff
	return was && !s.cutOff
}

// admit says whether the pods of a node may be evicted now, or in what time it
// is worth asking again; 0: only when something changes.
func (z *zones) admit(node *corev1.Node, s state, now time.Time) (bool, time.Duration) {
	if s.cutOff {
		return false, 0
	}
	zone, pace := zoneOf(node), apart
	lost, ready := s.lost[zone], s.ready[zone]
	if ready > 0 && lost >= fewNodes && float64(lost)/float64(lost+ready) >= disruption {
		if s.nodes < large {
			return false, 0
		}
		pace = slowly
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if wait := z.next[zone].Sub(now); wait > 0 {
		return false, wait
	}
	z.next[zone] = now.Add(pace)
	return true, 0
}

// zoneOf names a failure domain.
func zoneOf(node *corev1.Node) string {
	return node.Labels[corev1.LabelTopologyRegion] + "/" + node.Labels[corev1.LabelTopologyZone]
}
