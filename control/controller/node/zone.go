package node

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Rates of eviction: upstream's defaults.
const (
	// apart is the time between the evictions of two nodes of one zone.
	apart = 10 * time.Second
	// slowly is that time while a large zone is partly disrupted; in a small one
	// nobody is evicted then.
	slowly = 100 * time.Second
	// large is how many nodes the zone of a large cluster has, at least.
	large = 51
	// disruption is the share of nodes not ready that makes a zone partly
	// disrupted, and fewNodes how many there must be at least.
	disruption = 0.55
	fewNodes   = 3
	// aside is the label of a node that does not count for how its zone is.
	aside = "node.kubernetes.io/exclude-disruption"
)

// state is how the cluster's nodes are, by zone.
type state struct {
	ready  map[string]int
	lost   map[string]int
	cutOff bool // no node is ready anywhere
}

// zones keeps the pace of evictions, and counts the nodes as they change: each
// heartbeat asks for the counts.
type zones struct {
	mu     sync.Mutex
	next   map[string]time.Time // when a zone may lose its next node
	cutOff bool

	known  map[string]member // by node
	ready  map[string]int    // by zone, as lost
	lost   map[string]int
	absent map[string]bool // the nodes that are not ready
}

// member is what counts of a node.
type member struct {
	zone  string
	ready bool
	aside bool
}

func newZones() zones {
	return zones{
		next: map[string]time.Time{}, known: map[string]member{},
		ready: map[string]int{}, lost: map[string]int{}, absent: map[string]bool{},
	}
}

// note takes over a node's state; nil forgets it.
func (z *zones) note(name string, node *corev1.Node) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if was, ok := z.known[name]; ok {
		z.count(was, -1)
		delete(z.known, name)
		delete(z.absent, name)
	}
	if node == nil {
		return
	}
	_, excluded := node.Labels[aside]
	is := member{zoneOf(node), isReady(node), excluded}
	z.known[name] = is
	z.count(is, 1)
	if !is.ready {
		z.absent[name] = true
	}
}

// count adds by to the nodes like m. The caller holds the lock.
func (z *zones) count(m member, by int) {
	if m.aside {
		return
	}
	in := z.lost
	if m.ready {
		in = z.ready
	}
	if in[m.zone] += by; in[m.zone] == 0 {
		delete(in, m.zone)
	}
}

// judge gives the counts.
func (z *zones) judge() state {
	z.mu.Lock()
	defer z.mu.Unlock()
	return state{
		ready: maps.Clone(z.ready), lost: maps.Clone(z.lost),
		cutOff: len(z.lost) > 0 && len(z.ready) == 0,
	}
}

// unready are the names of the nodes that are not ready, sorted.
func (z *zones) unready() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Sorted(maps.Keys(z.absent))
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
		if lost+ready < large {
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
