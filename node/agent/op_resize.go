package agent

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/status"
	"github.com/sampan-dev/sampan/node/cri"
)

// makeRoom finds whether a pod whose resources were changed in place still has
// its room on the node.
func (m *machine) makeRoom() {
	wants := false
	for _, c := range spec.Containers(m.pod) {
		now := m.now.Latest(c.Name)
		if now == nil || now.State != actual.Running {
			continue
		}
		have, known := m.applied[now.ID]
		wants = wants || (known && len(plan.Resized(have, c.Resources)) > 0)
	}
	m.noRoom = nil
	if m.stage != serving {
		return
	}
	if !wants {
		m.resized()
		return
	}
	if r := m.a.resizable(m); r != nil {
		m.noRoom = &status.Verdict{Reason: r.Reason, Message: r.Message}
		m.tellNoRoom()
		return
	}
	m.mu.Lock()
	m.holds = m.pod
	m.mu.Unlock()
	if m.resizing != m.pod.Generation {
		m.resizing = m.pod.Generation
		m.event(corev1.EventTypeNormal, "ResizeStarted", resizeMessage(m.pod, m.resizing, "started", ""))
	}
}

// tellNoRoom tells once of each resize that has to wait.
func (m *machine) tellNoRoom() {
	if m.heldBack == m.pod.Generation {
		return
	}
	m.heldBack = m.pod.Generation
	m.event(corev1.EventTypeWarning, "Resize"+m.noRoom.Reason, resizeMessage(m.pod, m.heldBack, m.noRoom.Reason, m.noRoom.Message))
}

// resized tells of the end of a resize: all that run have what they should.
func (m *machine) resized() {
	if m.resizing == 0 {
		return
	}
	m.event(corev1.EventTypeNormal, "ResizeCompleted", resizeMessage(m.pod, m.resizing, "completed", ""))
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
	_, err := m.a.cfg.Engine.UpdatePodSandboxResources(ctx, &rt.UpdatePodSandboxResourcesRequest{
		PodSandboxId: box, Resources: spec.PodResources(pod, m.a.node),
	})
	if err != nil {
		m.log.Debug("the pod's own limits are not changed", "sandbox", box, "err", err)
	}
}

// prepareResize takes what an operation needs from the owner's fields.
func (m *machine) prepareResize() func(context.Context, *corev1.Pod, plan.Step) func(*machine) {
	box := ""
	if b := m.now.Ready(); b != nil {
		box = b.ID
	}
	return func(ctx context.Context, pod *corev1.Pod, s plan.Step) func(*machine) {
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
	_, err := m.a.cfg.Engine.UpdateContainerResources(ctx, &rt.UpdateContainerResourcesRequest{
		ContainerId: s.ID, Linux: spec.ContainerResources(pod, c, m.a.node),
	})
	if err != nil {
		m.a.events.Event(pod, corev1.EventTypeWarning, "ResizeError", resizeMessage(pod, pod.Generation, "error", cri.Message(err)))
		pause(ctx, startRetry)
		return nil
	}
	resources := *c.Resources.DeepCopy()
	return func(m *machine) { m.applied[s.ID] = resources }
}
