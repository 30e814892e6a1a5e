package status

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
)

// The conditions that the node's agent owns; all others are kept as they are.
var owned = []corev1.PodConditionType{
	corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled,
	corev1.PodResizePending, corev1.PodResizeInProgress, corev1.AllContainersRestarting,
}

// Reasons of conditions, as upstream spells them.
const (
	podCompleted   = "PodCompleted"
	podFailed      = "PodFailed"
	notReady       = "ContainersNotReady"
	notInitialized = "ContainersNotInitialized"
	gatesNotReady  = "ReadinessGatesNotReady"
	boxNotReady    = "PodSandboxNotReady"
)

type finding struct {
	status          bool
	reason, message string
}

// conditions appends the owned conditions to the foreign ones.
func conditions(s *corev1.PodStatus, in Input) {
	for _, c := range in.Pod.Status.Conditions {
		if !slices.Contains(owned, c.Type) {
			s.Conditions = append(s.Conditions, c)
		}
	}
	disruption(s, in)
	if untouched(in) {
		return
	}
	resizing(s, in)
	containers := containersReady(in, s)
	set(s, in, corev1.PodReadyToStartContainers, sandboxReady(in))
	set(s, in, corev1.PodInitialized, initialized(in, s))
	set(s, in, corev1.PodReady, ready(in, s, containers))
	set(s, in, corev1.ContainersReady, containers)
	set(s, in, corev1.PodScheduled, finding{status: true})
	if plan.MayRestartAll(in.Pod) {
		set(s, in, corev1.AllContainersRestarting, restartingAll(in, s))
	}
}

// set appends one condition; its transition time moves only with its status.
func set(s *corev1.PodStatus, in Input, t corev1.PodConditionType, f finding) {
	c := corev1.PodCondition{
		Type: t, Status: corev1.ConditionFalse, Reason: f.reason, Message: f.message,
		ObservedGeneration: in.Pod.Generation, LastTransitionTime: stamp(in.Now),
	}
	if f.status {
		c.Status = corev1.ConditionTrue
	}
	for _, old := range in.Old.Conditions {
		if old.Type != t {
			continue
		}
		c.LastProbeTime = old.LastProbeTime
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	s.Conditions = append(s.Conditions, c)
}

// disruption tells of a pod that the node itself brings down.
func disruption(s *corev1.PodStatus, in Input) {
	if in.Failed == nil || in.Failed.Disruption == "" || !decides(s, in) {
		return
	}
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
	set(s, in, corev1.DisruptionTarget, finding{status: true, reason: corev1.PodReasonTerminationByKubelet, message: in.Failed.Disruption})
}

// resizing tells of a resize that waits for room, or is under way. There is no
// such condition otherwise.
func resizing(s *corev1.PodStatus, in Input) {
	if in.NoRoom != nil {
		set(s, in, corev1.PodResizePending, finding{status: true, reason: in.NoRoom.Reason, message: in.NoRoom.Message})
	}
	if inProgress(in) {
		f := finding{status: true, message: in.ResizeFault}
		if f.message != "" {
			f.reason = corev1.PodReasonError
		}
		set(s, in, corev1.PodResizeInProgress, f)
	}
}

func inProgress(in Input) bool {
	if box := in.Actual.Ready(); box != nil {
		if have, ok := in.Given[box.ID]; ok && plan.WholeResized(have, in.Pod) {
			return true
		}
	}
	return slices.ContainsFunc(spec.Containers(in.Pod), func(c *corev1.Container) bool {
		have, ok := given(in, c)
		return ok && len(plan.Resized(have, plan.Asked(in.Pod, c))) > 0
	})
}

// restartingAll tells of a pod whose containers all start over.
func restartingAll(in Input, s *corev1.PodStatus) finding {
	if f, is := terminalFinding(s.Phase); is {
		return f
	}
	if plan.Resetting(in.Pod, in.Actual) {
		return finding{status: true, reason: "RestartAllContainersStarted", message: "container exited with restart policy rule"}
	}
	return finding{}
}

// sandboxReady is about the newest sandbox: with others that are ready beside it, or
// without an address, it has to be made anew. Upstream makes a sandbox when the volumes
// are mounted, and what the condition is called is true then; here both are done at the
// same time, so it waits for both.
func sandboxReady(in Input) finding {
	ready := 0
	for i := range in.Actual.Sandboxes {
		if in.Actual.Sandboxes[i].Ready {
			ready++
		}
	}
	box := in.Actual.Ready()
	var why string
	switch {
	case len(in.Actual.Sandboxes) == 0:
		why = "no pod sandbox exists"
	case ready > 1:
		why = "multiple pod sandboxes are ready and need to be reconciled"
	case box == nil:
		why = "pod sandbox is not ready"
	case !box.HostNet && len(box.IPs) == 0 && in.Pod.Annotations[cri.NetworkAnnotation] != cri.NoNetwork:
		why = "pod sandbox has no IP address"
	case in.Unmounted && !wasReady(in):
		why = "volumes are not mounted"
	default:
		return finding{status: true}
	}
	return finding{reason: boxNotReady, message: why}
}

// wasReady: the pod has been ready to start containers, be it that an agent that has just
// come has yet to see to its volumes.
func wasReady(in Input) bool {
	return len(in.Actual.Containers) > 0 || slices.ContainsFunc(in.Old.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReadyToStartContainers && c.Status == corev1.ConditionTrue
	})
}

func initialized(in Input, s *corev1.PodStatus) finding {
	if s.Phase == corev1.PodSucceeded {
		return finding{status: true, reason: podCompleted}
	}
	if len(in.Pod.Spec.InitContainers) == 0 {
		return finding{status: true}
	}
	if mainBegan(in) {
		return finding{status: true}
	}
	// A pod that starts over in place is not taken for one that has never begun.
	for _, c := range in.Old.Conditions {
		if c.Type == corev1.PodInitialized && c.Status == corev1.ConditionTrue && plan.MayRestartAll(in.Pod) {
			return finding{status: true}
		}
	}
	var open []string
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		st := find(s.InitContainerStatuses, c.Name)
		if st == nil {
			open = append(open, c.Name)
			continue
		}
		if spec.Sidecar(c) && st.Started != nil && *st.Started {
			continue
		}
		if !spec.Sidecar(c) && st.Ready {
			continue
		}
		open = append(open, c.Name)
	}
	if len(open) == 0 {
		return finding{status: true}
	}
	return finding{reason: notInitialized, message: fmt.Sprintf("containers with incomplete status: %s", open)}
}

func terminalFinding(phase corev1.PodPhase) (finding, bool) {
	switch phase {
	case corev1.PodSucceeded:
		return finding{reason: podCompleted}, true
	case corev1.PodFailed:
		return finding{reason: podFailed}, true
	}
	return finding{}, false
}

func containersReady(in Input, s *corev1.PodStatus) finding {
	if f, ok := terminalFinding(s.Phase); ok {
		return f
	}
	var unready []string
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		if st := find(s.InitContainerStatuses, c.Name); spec.Sidecar(c) && !st.Ready {
			unready = append(unready, c.Name)
		}
	}
	for i := range in.Pod.Spec.Containers {
		if st := find(s.ContainerStatuses, in.Pod.Spec.Containers[i].Name); !st.Ready {
			unready = append(unready, st.Name)
		}
	}
	if len(unready) == 0 {
		return finding{status: true}
	}
	return finding{reason: notReady, message: fmt.Sprintf("containers with unready status: %s", unready)}
}

// ready is containersReady and the readiness gates.
func ready(in Input, s *corev1.PodStatus, containers finding) finding {
	if !containers.status {
		return containers
	}
	var open []string
	for _, gate := range in.Pod.Spec.ReadinessGates {
		i := slices.IndexFunc(in.Pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == gate.ConditionType })
		switch {
		case i < 0:
			open = append(open, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case in.Pod.Status.Conditions[i].Status != corev1.ConditionTrue:
			open = append(open, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v",
				gate.ConditionType, in.Pod.Status.Conditions[i].Status))
		}
	}
	if len(open) == 0 {
		return finding{status: true}
	}
	return finding{reason: gatesNotReady, message: strings.Join(open, ", ")}
}
