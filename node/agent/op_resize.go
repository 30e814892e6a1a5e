package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/admit"
	"github.com/sampan-dev/sampan/node/agent/numa"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/status"
	"github.com/sampan-dev/sampan/node/agent/tally"
	"github.com/sampan-dev/sampan/node/cri"
)

// makeRoom finds whether a pod whose resources were changed in place has room for
// them on the node, and tells how far it is with that.
func (m *machine) makeRoom() {
	m.noRoom = nil
	m.waits.Store(false)
	if m.stage != serving {
		m.waited(tally.Ended)
		return
	}
	m.waits.Store(true) // also while it is found out: what is left meanwhile wakes it
	if r := m.grant(); r != nil {
		m.noRoom = &status.Verdict{Reason: r.Reason, Message: r.Message}
		if r.Reason == corev1.PodReasonDeferred {
			m.wait()
		}
		m.tellNoRoom()
	} else {
		m.waits.Store(false)
	}
	switch {
	case !m.wantsOthers():
		m.resized()
	case m.noRoom == nil && m.resizing != m.pod.Generation:
		m.resizing, m.resizeFault, m.holdResize = m.pod.Generation, "", time.Time{}
		m.event(corev1.EventTypeNormal, "ResizeStarted", resizeMessage(m.pod, m.resizing, "started", ""))
	}
}

// grant gives the pod the room that its spec asks for now, or says why not.
func (m *machine) grant() *admit.Refusal {
	m.mu.Lock()
	holds := m.holds
	m.mu.Unlock()
	if holds == nil || holds == m.pod {
		return nil
	}
	if differ(holds, m.pod) {
		if r := m.a.resizable(m); r != nil {
			return r
		}
		defer m.a.roomLeft(podResized) // it may need less than before
		m.waited(tally.Accepted)
	}
	m.waited(tally.Reverted) // if it still waits, what it waited for is wanted no more
	m.mu.Lock()
	m.holds = m.pod
	m.mu.Unlock()
	return nil
}

// roomLeft has the pods whose resize waits for room look again, since something may
// have made it.
func (a *Agent) roomLeft(by string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.machines {
		if m.waits.Load() {
			m.mu.Lock()
			m.freed = by
			m.mu.Unlock()
			m.wake()
		}
	}
}

// differ: two versions of a pod ask for different resources that can be resized.
func differ(granted, pod *corev1.Pod) bool {
	if plan.WholeResized(plan.AskedWhole(granted), pod) {
		return true
	}
	for _, c := range spec.Containers(pod) {
		if had := spec.Container(granted, c.Name); had != nil && len(plan.Resized(plan.Asked(granted, had), plan.Asked(pod, c))) > 0 {
			return true
		}
	}
	return false
}

// wantsOthers: something of the pod runs with other resources than it was granted.
func (m *machine) wantsOthers() bool {
	pod := m.allotted()
	if box := m.now.Ready(); box != nil {
		if have, known := m.given[box.ID]; known && plan.WholeResized(have, pod) {
			return true
		}
	}
	for _, c := range spec.Containers(pod) {
		now := m.now.Latest(c.Name)
		if now == nil || now.State != actual.Running {
			continue
		}
		if have, known := m.given[now.ID]; known && len(plan.Resized(have, plan.Asked(pod, c))) > 0 {
			return true
		}
	}
	return false
}

// tellNoRoom tells once of each resize that has to wait.
func (m *machine) tellNoRoom() {
	if m.heldBack == m.pod.Generation {
		return
	}
	m.heldBack = m.pod.Generation
	if m.noRoom.Reason == corev1.PodReasonInfeasible {
		m.a.tally.ResizeInfeasible(m.a.infeasible(m.pod))
	}
	m.event(corev1.EventTypeWarning, "Resize"+m.noRoom.Reason, resizeMessage(m.pod, m.heldBack, m.noRoom.Reason, m.noRoom.Message))
}

// What may make room for a resize that waits, in the words of upstream's counts.
const (
	podUpdated = "pod_updated"
	podResized = "pod_resized"
	podEnded   = "pod_terminated"
)

// wait notes that a resize has to wait for room.
func (m *machine) wait() {
	if m.deferred.IsZero() {
		m.deferred = time.Now()
	}
}

// waited counts the end of a resize's waiting, if it waited.
func (m *machine) waited(resolution string) {
	if m.deferred.IsZero() {
		return
	}
	m.mu.Lock()
	by := cmp.Or(m.freed, podUpdated)
	m.freed = ""
	m.mu.Unlock()
	m.a.tally.ResizeWaited(m.pod, resolution, by, time.Since(m.deferred))
	m.deferred = time.Time{}
}

// infeasible is why a resize can never be done here, in the words of upstream's counts,
// which has none for a node that is too small.
func (a *Agent) infeasible(pod *corev1.Pod) string {
	if what := a.places.static(); what != "" && numa.Exclusive(pod) {
		return "guaranteed_pod_" + strings.ToLower(what) + "_manager_static_policy"
	}
	return "insufficient_node_allocatable"
}

// resized tells of the end of a resize: all that run have what they should.
func (m *machine) resized() {
	if m.resizing == 0 {
		return
	}
	m.resizeFault = ""
	m.event(corev1.EventTypeNormal, "ResizeCompleted", resizeMessage(m.allotted(), m.resizing, "completed", ""))
	m.resizing = 0
}

// resizeMessage says what a pod is to have, in the form that upstream's events have.
func resizeMessage(pod *corev1.Pod, generation int64, what, fault string) string {
	type container struct {
		Name      string                      `json:"name"`
		Resources corev1.ResourceRequirements `json:"resources"`
	}
	wanted := struct {
		InitContainers []container `json:"initContainers,omitempty"`
		Containers     []container `json:"containers,omitempty"`
		Generation     int64       `json:"generation"`
		Error          string      `json:"error,omitempty"`
	}{Generation: generation, Error: fault}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		wanted.InitContainers = append(wanted.InitContainers, container{c.Name, c.Resources})
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		wanted.Containers = append(wanted.Containers, container{c.Name, c.Resources})
	}
	text, err := json.Marshal(wanted)
	if err != nil {
		return "Pod resize " + what
	}
	return fmt.Sprintf("Pod resize %s: %s", what, text)
}

// resizePod gives the pod as a whole the resources of its spec. It is tried
// before a container's are changed, for room to grow into, and after, since a
// pod's limit can't shrink below what a container still has; so a refusal is
// for the next try, or the next container's, to overcome.
func (m *machine) resizePod(ctx context.Context, pod *corev1.Pod, box string) {
	if err := m.updateSandbox(ctx, pod, box); err != nil {
		m.log.Debug("the pod's own limits are not changed", "sandbox", box, "err", err)
	}
}

func (m *machine) updateSandbox(ctx context.Context, pod *corev1.Pod, box string) error {
	_, err := m.a.cfg.Engine.UpdatePodSandboxResources(ctx, &rt.UpdatePodSandboxResourcesRequest{
		PodSandboxId: box, Resources: spec.PodResources(pod, m.a.node),
	})
	if cri.IsUnimplemented(err) {
		return nil // such an engine doesn't want to know
	}
	return err
}

// prepareResizeWhole takes what an operation needs from the owner's fields.
func (m *machine) prepareResizeWhole(begun plan.Step) func(context.Context, *corev1.Pod, plan.Step) func(*machine) {
	less := m.shrinks(begun)
	return func(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
		return m.resizeWhole(ctx, pod, s, less)
	}
}

// resizeWhole brings about what the pod as a whole is to have.
func (m *machine) resizeWhole(ctx context.Context, pod *corev1.Pod, s plan.Step, less shrink) func(*machine) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := m.roomToShrink(ctx, s.ID, less)
	if err == nil {
		err = m.updateSandbox(ctx, pod, s.ID)
	}
	if err != nil {
		m.tellFault(pod, err)
		return func(m *machine) { m.holdResize = time.Now().Add(startRetry) }
	}
	given := plan.AskedWhole(pod)
	return func(m *machine) { m.given[s.ID], m.holdResize = given, time.Time{} }
}

// tellFault tells of a resize that failed.
func (m *machine) tellFault(pod *corev1.Pod, err error) {
	m.a.events.Event(pod, corev1.EventTypeWarning, "ResizeError", resizeMessage(pod, pod.Generation, "error", cri.Message(err)))
	m.later(func(m *machine) { m.resizeFault = cri.Message(err) })
}

// prepareResize takes what an operation needs from the owner's fields.
func (m *machine) prepareResize(begun plan.Step) func(context.Context, *corev1.Pod, plan.Step) func(*machine) {
	box := ""
	if b := m.now.Ready(); b != nil {
		box = b.ID
	}
	less := m.shrinks(begun)
	return func(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
		if err := m.roomToShrink(ctx, box, less); err != nil {
			m.tellFault(pod, err)
			pause(ctx, startRetry)
			return nil
		}
		m.resizePod(ctx, pod, box)
		defer m.resizePod(ctx, pod, box)
		return m.resize(ctx, pod, s)
	}
}

// resize gives a running container the resources of its spec.
func (m *machine) resize(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c := spec.Container(pod, s.Container)
	begin := time.Now()
	_, err := m.a.cfg.Engine.UpdateContainerResources(ctx, &rt.UpdateContainerResourcesRequest{
		ContainerId: s.ID, Linux: spec.ContainerResources(pod, c, m.a.node),
	})
	m.a.tally.ResizeDone(time.Since(begin), err)
	if err != nil {
		m.tellFault(pod, err)
		pause(ctx, startRetry)
		return nil
	}
	given := plan.Asked(pod, c)
	return func(m *machine) { m.given[s.ID] = given }
}
