package agent

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/status"
)

// ending is the node's own decision to bring a pod down.
type ending struct {
	verdict status.Verdict
	// grace replaces the pod's own when it isn't negative.
	grace time.Duration
	// reason is the event's, "" for none; annotations go with it.
	reason      string
	annotations map[string]string
}

// preempt ends a pod for the sake of a critical one that lacked a resource.
func (a *Agent) preempt(uid types.UID, lacked string) {
	if m := a.machine(uid); m != nil {
		a.tally.PodPreempted(lacked)
		m.finishOff(ending{reason: "Preempting", grace: -1, verdict: status.Verdict{
			Reason: "Preempting", Message: "Preempted in order to admit critical pod",
			Disruption: "Pod was preempted by Kubelet to accommodate a critical pod.",
		}})
	}
}

// finishOff leaves the decision for the owner; the pod's room is free at once.
// A pod that is coming down already stays as it is.
func (m *machine) finishOff(e ending) {
	m.mu.Lock()
	m.holds = nil
	if m.end == nil {
		m.end = &e
	}
	m.mu.Unlock()
	m.wake()
	m.a.roomLeft(podEnded)
}

// heed carries a decision of the node out.
func (m *machine) heed(e *ending) {
	if e == nil || m.stage != serving {
		return
	}
	m.fatal = &e.verdict
	m.fatal.Yields = true
	if e.reason != "" {
		m.a.events.Annotated(m.pod, e.annotations, corev1.EventTypeWarning, e.reason, e.verdict.Message)
	}
	m.leave()
	if e.grace >= 0 {
		m.grace = int64(e.grace / time.Second)
		m.stop = &plan.Stop{Deadline: time.Now().Add(e.grace)}
	}
}
