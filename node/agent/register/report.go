package register

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// report writes the status when it has changed, or when five minutes have gone: the
// first time after a change, up to half of that more or less.
func (r *Registrar) report(ctx context.Context) error {
	r.mu.Lock()
	have := r.seen
	r.mu.Unlock()
	if have == nil {
		return nil
	}
	next, facts := r.status(ctx, have.Status), unlike(have.Labels, r.facts())
	news := r.reported.IsZero() || changed(have.Status, next) || len(facts) > 0
	if !news && time.Since(r.reported) < r.cfg.ReportEvery+r.delay {
		return nil
	}
	data, err := statusPatch(have.Status, next, facts)
	if err != nil {
		return err
	}
	at := target.Of(client.Nodes.GroupVersionResource, "").Object(r.cfg.NodeName).Sub("status")
	got, err := client.Nodes.Patch(ctx, r.cfg.Transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: data})
	if apierrors.IsNotFound(err) {
		// Somebody deleted the Node while it lives: it registers again.
		return r.ensure(ctx)
	}
	if err != nil {
		return err
	}
	r.saw(got)
	first := r.reported.IsZero()
	r.reported, r.delay = time.Now(), 0
	if news {
		r.delay = spread(r.cfg.NodeName, r.cfg.ReportEvery)
	}
	r.tell(next)
	for _, reason := range turns(have.Status, next) {
		r.say(corev1.EventTypeNormal, reason, fmt.Sprintf("Node %s status is now: %s", r.cfg.NodeName, reason))
	}
	if first && rebooted(have.Status, next) {
		r.say(corev1.EventTypeWarning, "Rebooted", fmt.Sprintf("Node %s has been rebooted, boot id: %s", r.cfg.NodeName, next.NodeInfo.BootID))
	}
	if r.ready != nil && *r.ready {
		r.began.told(r.cfg.Counts, r.reported)
	}
	return nil
}

// spread is a delay of up to half of a time, or as much sooner, as upstream's kubelet
// has it: nodes that have come, or have changed, together shall not all write again at
// the same moment five minutes later. It goes by the node's name rather than by chance.
func spread(node string, of time.Duration) time.Duration {
	sum := sha256.Sum256([]byte(node))
	const parts = 1 << 16
	return of*time.Duration(binary.BigEndian.Uint16(sum[:]))/parts - of/2
}

// tell records an event when readiness has changed.
func (r *Registrar) tell(s corev1.NodeStatus) {
	for _, c := range s.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		ready := c.Status == corev1.ConditionTrue
		if r.ready != nil && *r.ready == ready {
			return
		}
		r.ready = &ready
		reason := "NodeNotReady"
		if ready {
			reason = "NodeReady"
		}
		r.say(corev1.EventTypeNormal, reason, fmt.Sprintf("Node %s status is now: %s", r.cfg.NodeName, reason))
	}
}

// say records an event about the node.
func (r *Registrar) say(eventtype, reason, message string) {
	r.events.EventRef(r.Reference(), eventtype, reason, message)
}

// turns are the reasons of upstream's events about what the node has become short of,
// and is no more. What it is from its beginning nobody is told of.
func turns(before, now corev1.NodeStatus) (reasons []string) {
	status := func(s corev1.NodeStatus, what corev1.NodeConditionType) corev1.ConditionStatus {
		for i := range s.Conditions {
			if s.Conditions[i].Type == what {
				return s.Conditions[i].Status
			}
		}
		return ""
	}
	for _, p := range []pressure{memoryPressure, diskPressure, pidPressure} {
		was, is := status(before, p.condition), status(now, p.condition)
		switch {
		case was == "" || was == is:
		case is == corev1.ConditionTrue:
			reasons = append(reasons, strings.Replace(p.highReason, "Kubelet", "Node", 1))
		default:
			reasons = append(reasons, strings.Replace(p.reason, "Kubelet", "Node", 1))
		}
	}
	return reasons
}

// rebooted: the machine was started anew since its status was last written.
func rebooted(before, now corev1.NodeStatus) bool {
	return before.NodeInfo.BootID != "" && before.NodeInfo.BootID != now.NodeInfo.BootID
}

// changed compares statuses without the heartbeat times.
func changed(a, b corev1.NodeStatus) bool {
	return !equality.Semantic.DeepEqual(still(a), still(b))
}

func still(s corev1.NodeStatus) corev1.NodeStatus {
	s.Conditions = slices.Clone(s.Conditions) // of all the rest nothing is changed
	for i := range s.Conditions {
		s.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return s
}

// statusPatch is what makes one status of another, and sets labels: a write of the
// status may change those as well.
func statusPatch(before, after corev1.NodeStatus, labels map[string]string) ([]byte, error) {
	a, err := json.Marshal(corev1.Node{Status: before})
	if err != nil {
		return nil, fmt.Errorf("encode node status: %w", err)
	}
	b, err := json.Marshal(corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Status: after})
	if err != nil {
		return nil, fmt.Errorf("encode node status: %w", err)
	}
	data, err := strategicpatch.CreateTwoWayMergePatch(a, b, corev1.Node{})
	if err != nil {
		return nil, fmt.Errorf("compare node statuses: %w", err)
	}
	return data, nil
}
