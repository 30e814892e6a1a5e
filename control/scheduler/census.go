package scheduler

import (
	"math/bits"
	"time"
)

// The parts of the queue, and why a pod comes into them; upstream's words.
const (
	activeQueue        = "active"
	backoffQueue       = "backoff"
	unschedulableQueue = "unschedulable"
	gatedQueue         = "gated"

	podAdded      = "UnscheduledPodAdd"
	podUpdated    = "UnscheduledPodUpdate"
	gatesGone     = "UnscheduledPodUpdatePodSchedulingGatesEliminated"
	attemptFailed = "ScheduleAttemptFailure"
	backoffOver   = "BackoffComplete"
	waitOver      = "UnschedulableTimeout"
	early         = "PopFromBackoffQ"
	forced        = "ForceActivate"
)

// events are upstream's names of changes, by the position of the kind; those that end
// in a resource get a verb.
var events = [...]string{
	"NodeAdd", "NodeDelete", "NodeUpdateNodeLabel", "NodeUpdateNodeTaint", "NodeUpdateNodeAllocatable", "NodeUpdateNodeDeclaredFeature",
	"AssignedPodAdd", "AssignedPodDelete", "AssignedPodUpdate", "UnscheduledPodUpdatePodGeneratedResourceClaim", "NamespaceUpdate",
	"PersistentVolumeClaim", "PersistentVolume", "storage.k8s.io/StorageClass", "storage.k8s.io/CSINode", "storage.k8s.io/CSIDriver",
	"storage.k8s.io/CSIStorageCapacity", "storage.k8s.io/VolumeAttachment",
	"resource.k8s.io/ResourceClaim", "resource.k8s.io/DeviceClass", "resource.k8s.io/ResourceSlice", "scheduling.k8s.io/PodGroup",
}

// event is upstream's name of a change; of several changes at once that of the first.
func (c Change) event() string {
	at := bits.TrailingZeros32(uint32(c.Kind))
	switch {
	case at >= len(events):
		return ""
	case c.Kind == PodPlaced && c.Was != nil:
		return "AssignedPodUpdatePodLabel"
	case 1<<at < ClaimChanged:
		return events[at]
	case c.Old == nil && c.New != nil:
		return events[at] + "Add"
	case c.New == nil && c.Old != nil:
		return events[at] + "Delete"
	}
	return events[at] + "Update"
}

// censusWait bounds the wait for a scheduler that is busy; what was known before is
// told then.
const censusWait = time.Second

// follow lets the gauges be about a scheduler until leave is called.
func (m *Metrics) follow(s *Scheduler) (leave func()) {
	m.running.Store(s)
	return func() { m.running.CompareAndSwap(s, nil) }
}

// counts are what the goroutine that owns the queue says of it.
type counts struct {
	queues                        map[string]int
	refused                       map[[2]string]int // by plugin and profile
	nodes, pods, assumed, writing int
}

// census has the gauges say what is true now: the scheduler counts between two
// decisions. Where none runs, nobody waits.
func (m *Metrics) census() {
	s := m.running.Load()
	if s == nil {
		m.pending.Reset()
		m.reasons.Reset()
		m.cached.Reset()
		m.hands.Reset()
		return
	}
	counted := make(chan counts, 1)
	s.mail.post(func() { counted <- s.count() })
	timer := time.NewTimer(censusWait)
	defer timer.Stop()
	select {
	case c := <-counted:
		m.set(c)
	case <-timer.C:
	}
}

func (m *Metrics) set(c counts) {
	for _, name := range []string{activeQueue, backoffQueue, unschedulableQueue, gatedQueue} {
		m.pending.WithLabelValues(name).Set(float64(c.queues[name]))
	}
	m.reasons.Reset()
	for k, n := range c.refused {
		m.reasons.WithLabelValues(k[0], k[1]).Set(float64(n))
	}
	m.cached.WithLabelValues("nodes").Set(float64(c.nodes))
	m.cached.WithLabelValues("pods").Set(float64(c.pods))
	m.cached.WithLabelValues("assumed_pods").Set(float64(c.assumed))
	m.hands.WithLabelValues("binding").Set(float64(c.writing))
}

func (s *Scheduler) count() counts {
	c := counts{queues: map[string]int{}, refused: map[[2]string]int{}, nodes: len(s.cluster.Nodes()), pods: len(s.cluster.pods), writing: len(s.slots)}
	for _, w := range s.queue.pods {
		switch w.heap {
		case nil:
			if w.gated {
				c.queues[gatedQueue]++
			}
			if w.binding {
				c.assumed++
			}
		case &s.queue.active:
			c.queues[activeQueue]++
		case &s.queue.parked:
			c.queues[unschedulableQueue]++
			for _, plugin := range w.refused {
				c.refused[[...]string{plugin, w.pod.Spec.SchedulerName}]++
			}
		default:
			c.queues[backoffQueue]++
		}
	}
	return c
}
