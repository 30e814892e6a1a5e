package node

import (
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pulses remembers when each node was last heard of, on this process's clock.
type pulses struct {
	mu    sync.Mutex
	known map[string]*pulse
}

type pulse struct {
	heard     time.Time
	heartbeat metav1.Time      // of the Ready condition, as last seen
	renewed   metav1.MicroTime // of the lease, as last seen
	unreadied metav1.Time      // the transition for which pods were taken out of service
}

func (p *pulses) of(name string, now time.Time) *pulse {
	if p.known[name] == nil {
		p.known[name] = &pulse{heard: now}
	}
	return p.known[name]
}

// status takes note of a node's own report.
func (p *pulses) status(node *corev1.Node, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := p.of(node.Name, now)
	if c := conditionOf(&node.Status, corev1.NodeReady); c != nil && !c.LastHeartbeatTime.Equal(&have.heartbeat) {
		have.heartbeat, have.heard = c.LastHeartbeatTime, now
	}
}

// lease takes note of a lease; it says whether that was renewed. A node whose clock was set
// back renews it to an earlier time than before.
func (p *pulses) lease(lease *coordinationv1.Lease, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := p.of(lease.Name, now)
	if lease.Spec.RenewTime == nil || have.renewed.Equal(lease.Spec.RenewTime) {
		return false
	}
	have.renewed, have.heard = *lease.Spec.RenewTime, now
	return true
}

// silent says whether a node has been silent for too long; else, in what time it
// would have been.
func (p *pulses) silent(node *corev1.Node, now time.Time) (bool, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	have := p.of(node.Name, now)
	allowed := grace
	if conditionOf(&node.Status, corev1.NodeReady) == nil {
		allowed = startup
	}
	left := have.heard.Add(allowed).Sub(now)
	return left <= 0, left
}

// once runs do for each time that a node has been given up, until it succeeds. A node
// that says itself that it is not ready speaks for its pods as well.
func (p *pulses) once(node *corev1.Node, do func() error) error {
	c := conditionOf(&node.Status, corev1.NodeReady)
	if c == nil || c.Status != corev1.ConditionUnknown {
		return nil
	}
	p.mu.Lock()
	done := p.of(node.Name, time.Now()).unreadied.Equal(&c.LastTransitionTime)
	p.mu.Unlock()
	if done {
		return nil
	}
	if err := do(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(node.Name, time.Now()).unreadied = c.LastTransitionTime
	return nil
}

// reset counts everybody as heard of now.
func (p *pulses) reset(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, have := range p.known {
		have.heard = now
	}
}

func (p *pulses) forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, name)
}

// silenced is the status of a node that has stopped speaking: what it said of
// itself is not known any more.
func silenced(node *corev1.Node, now time.Time) (corev1.NodeStatus, bool) {
	status := *node.Status.DeepCopy()
	changed := false
	for _, kind := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		c := conditionOf(&status, kind)
		switch {
		case c == nil:
			status.Conditions = append(status.Conditions, corev1.NodeCondition{
				Type: kind, Status: corev1.ConditionUnknown,
				Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: node.CreationTimestamp, LastTransitionTime: metav1.NewTime(now),
			})
			changed = true
		case c.Status != corev1.ConditionUnknown:
			c.Status = corev1.ConditionUnknown
			c.Reason, c.Message = "NodeStatusUnknown", "Kubelet stopped posting node status."
			c.LastTransitionTime = metav1.NewTime(now)
			changed = true
		}
	}
	return status, changed
}

// conditionOf points into status.
func conditionOf(status *corev1.NodeStatus, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			return &status.Conditions[i]
		}
	}
	return nil
}

func isReady(node *corev1.Node) bool {
	c := conditionOf(&node.Status, corev1.NodeReady)
	return c != nil && c.Status == corev1.ConditionTrue
}
