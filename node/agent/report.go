package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/status"
)

// sendRetry spaces attempts to write a status that the API server refused.
var sendRetry = backoff.Policy{Min: time.Second, Max: 30 * time.Second}

// sendTimeout bounds one write.
const sendTimeout = 30 * time.Second

// count tells the counts what has changed in the status.
func (m *machine) count(before *corev1.PodStatus) {
	m.a.tally.Status(before, &m.status)
	if before.Phase == corev1.PodPending && m.status.Phase == corev1.PodRunning && m.status.StartTime != nil {
		m.a.tally.PodRuns(time.Since(m.status.StartTime.Time))
	}
}

// report computes the status and writes it when it differs from what the API
// has. One write is under way at a time, and it always carries the newest
// status: so a burst of changes becomes few writes, without any delay.
func (m *machine) report(ctx context.Context, again *alarm, waiting map[string]plan.Waiting) {
	if m.gone {
		m.written = true
		return
	}
	m.repeat()
	if !m.frozen {
		before := m.status
		m.status = m.compute(waiting)
		m.count(&before)
		m.a.roster.Update(m.pod, &m.status)
	}
	if m.static {
		m.mu.Lock()
		m.seenStatus = m.status
		m.mu.Unlock()
	}
	m.markReady()
	base := m.shownBy()
	m.written = base == nil || equality.Semantic.DeepEqual(m.status, base.Status)
	if m.written && base != nil {
		m.status = base.Status // of two that are equal one is enough
	}
	m.settle()
	m.began()
	if m.written && m.stage == releasing && m.ops[opRelease] == nil {
		m.wake() // release has looked in vain in this very step, and nothing else may come
	}
	if m.written || m.ops[opReport] != nil {
		return
	}
	if time.Now().Before(m.holdSend) {
		again.by(m.holdSend)
		return
	}
	next := m.status
	m.launch(ctx, opReport, plan.Step{}, func(ctx context.Context) func(*machine) {
		begin := time.Now()
		got, err := m.a.sendStatus(ctx, base, next)
		if err == nil && base.Status.Phase != next.Phase {
			m.a.mark(m.uid, "report "+strings.ToLower(string(next.Phase)), "", begin)
		}
		return func(m *machine) { m.sent(got, err) }
	})
}

func (m *machine) compute(waiting map[string]plan.Waiting) corev1.PodStatus {
	return status.Compute(status.Input{
		Pod: m.judged(), Old: m.status, Actual: m.now, Waiting: waiting, Ready: m.probes.Ready, Started: m.probes.Started,
		Allocated: m.health(),
		Given:     m.given, Unmounted: !m.allMounted(), Killed: m.killed, Throughout: m.throughout, NoRoom: m.noRoom, ResizeFault: m.resizeFault, Ended: m.ended, Failed: m.fatal, HostIPs: m.a.cfg.NodeIPs, Runtime: m.a.runtimeName(), Now: time.Now(),
	})
}

// repeat takes over what others write of the status: whoever has claims made for the pod
// may say so when it is here already, and a node that doesn't repeat it may write no
// status at all.
func (m *machine) repeat() {
	if m.static {
		return
	}
	api := &m.pod.Status
	m.status.ResourceClaimStatuses, m.status.ExtendedResourceClaimStatus = api.ResourceClaimStatuses, api.ExtendedResourceClaimStatus
	m.status.NodeAllocatableResourceClaimStatuses = api.NodeAllocatableResourceClaimStatuses
}

// sent takes the API server's answer in.
func (m *machine) sent(got *corev1.Pod, err error) {
	if err == nil {
		m.sendFail, m.holdSend = 0, time.Time{}
		switch {
		case m.static:
			m.a.sawMirror(got)
		case !older(got.ResourceVersion, m.pod.ResourceVersion):
			m.renew(got)
		}
		return
	}
	m.sendFail++
	m.holdSend = time.Now().Add(sendRetry.After(m.sendFail))
	if apierrors.IsNotFound(err) {
		// The watch will say so too; a pod that another has replaced is as gone.
		m.log.Debug("the pod whose status was to be written is gone")
		return
	}
	if m.sendFail > 1 {
		m.log.Warn("can't write the pod's status", "err", err)
	}
}

// sendStatus writes the difference between two statuses; the uid in the patch
// makes the API server refuse it for another pod of the name.
func (a *Agent) sendStatus(ctx context.Context, base *corev1.Pod, next corev1.PodStatus) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	patch, err := statusPatch(base, next)
	if err != nil {
		return nil, err
	}
	at := target.Of(client.Pods.GroupVersionResource, base.Namespace).Object(base.Name).Sub("status")
	return client.Pods.Patch(ctx, a.cfg.Transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: patch})
}

func statusPatch(base *corev1.Pod, next corev1.PodStatus) ([]byte, error) {
	// By way of maps, which the comparison would make of JSON else, and JSON of its own.
	before, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&corev1.Pod{Status: base.Status})
	if err != nil {
		return nil, fmt.Errorf("encode the pod's status: %w", err)
	}
	after, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&corev1.Pod{Status: next})
	if err != nil {
		return nil, fmt.Errorf("encode the pod's status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergeMapPatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compare the pod's statuses: %w", err)
	}
	patch["metadata"] = map[string]any{"uid": base.UID}
	return json.Marshal(patch)
}

// markReady puts the moment of readiness on the timeline.
func (m *machine) markReady() {
	ready := false
	for _, c := range m.status.Conditions {
		ready = ready || (c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue)
	}
	if ready && !m.wasReady {
		m.a.mark(m.uid, "ready", "", time.Now())
	}
	m.wasReady = ready
}

// doubtful tells of one probe that succeeded with a warning.
func (m *machine) doubtful(pod *corev1.Pod, container, kind, output string) {
	m.a.containerEvent(pod, container, corev1.EventTypeWarning, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", kind, output))
}

// unhealthy tells of one failed probe.
func (m *machine) unhealthy(pod *corev1.Pod, container, kind, output string) {
	m.a.containerEvent(pod, container, corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", kind, output))
}

// health tells of the devices that containers were given, unless that is switched off
// (ResourceHealthStatus, KEP-4680).
func (m *machine) health() func(container string) []corev1.ResourceStatus {
	if !m.a.cfg.gates.On("ResourceHealthStatus") {
		return nil
	}
	return func(container string) []corev1.ResourceStatus { return m.a.allocated(m.pod, container) }
}
