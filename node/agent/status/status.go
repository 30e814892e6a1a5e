// Package status computes a pod's status, exactly as clients of Kubernetes
// expect it, from the spec, what the engine has and what the probes say. It is
// pure: the same input gives the same status, so that a write is needed only
// when the outcome differs.
package status

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// Verdict decides a whole pod's end: it was rejected, evicted or out of time.
type Verdict struct {
	Reason, Message string
	// Disruption is the message of the condition DisruptionTarget, by which the
	// pod shows that it is not at fault; "" for none.
	Disruption string
	// Yields: a pod whose containers all end well has succeeded all the same. So upstream
	// has it for what the node stops: preempted, evicted, at the machine's end.
	Yields bool
}

// Input is all that a status depends on.
type Input struct {
	Pod *corev1.Pod
	// Old is the status last written, or the API's when none was.
	Old    corev1.PodStatus
	Actual *actual.Pod
	// Waiting says why containers are held back, by name.
	Waiting map[string]plan.Waiting
	// Ready and Started are what the probes say of a container id.
	Ready, Started func(c *corev1.Container, id string) bool
	// Allocated is the health of what a container was given; nil for nothing.
	Allocated func(container string) []corev1.ResourceStatus
	// Given are the resources that running containers and the sandbox have, by id.
	Given map[string]plan.Given
	// Throughout: the pod's handler can do mounts that are read-only all the way
	// down; nil leaves each container with what was last said of it.
	Throughout *bool
	// Killed are the containers that were killed while they ran.
	Killed plan.Killed
	// NoRoom, when not nil, is why a resize has to wait.
	NoRoom *Verdict
	// Unmounted: the pod's volumes are not all there yet.
	Unmounted bool
	// ResizeFault is why a resize does not get on, "" for nothing.
	ResizeFault string
	// Ended: no container runs or will run again.
	Ended bool
	// Failed, when not nil, makes the phase Failed.
	Failed *Verdict
	// HostIPs are the node's addresses; Runtime is the engine's name, the
	// scheme of container ids.
	HostIPs []string
	Runtime string
	Now     time.Time
}

// Compute returns the pod's status.
func Compute(in Input) corev1.PodStatus {
	s := corev1.PodStatus{
		NominatedNodeName:                    "",
		QOSClass:                             spec.QoS(in.Pod),
		StartTime:                            in.Old.StartTime,
		Resize:                               in.Old.Resize,
		ResourceClaimStatuses:                in.Old.ResourceClaimStatuses,
		ObservedGeneration:                   in.Pod.Generation,
		ExtendedResourceClaimStatus:          in.Old.ExtendedResourceClaimStatus,
		NodeAllocatableResourceClaimStatuses: in.Old.NodeAllocatableResourceClaimStatuses,
	}
	if s.StartTime == nil {
		now := stamp(in.Now)
		s.StartTime = &now
	}
	if !untouched(in) {
		addresses(&s, in)
	}
	if !refused(in) {
		containers(&s, in)
	}
	s.Phase = phase(in, &s)
	reason(&s, in)
	resources(&s, in)
	conditions(&s, in)
	keepEnds(&s, in)
	return s
}

// refused: the node didn't take the pod, so nothing was ever made for it. An agent
// that has been restarted knows that by the old status alone.
func refused(in Input) bool {
	failed := in.Failed != nil || in.Old.Phase == corev1.PodFailed
	return failed && len(in.Actual.Sandboxes) == 0 && len(in.Actual.Containers) == 0 && len(in.Old.ContainerStatuses) == 0
}

// untouched: the pod was refused before anything was told of it. Its status says no
// more than that, as upstream's does.
func untouched(in Input) bool {
	told := slices.ContainsFunc(in.Old.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodInitialized })
	return refused(in) && !told
}

// addresses are the node's and the pod's.
func addresses(s *corev1.PodStatus, in Input) {
	s.HostIP = first(in.HostIPs)
	for _, ip := range in.HostIPs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	podIPs(s, in)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// podIPs are the sandbox's addresses, or the node's for a pod in its network.
// They outlive the sandbox: an ended pod still shows where it was.
func podIPs(s *corev1.PodStatus, in Input) {
	ips := []string(nil)
	if in.Pod.Spec.HostNetwork {
		ips = in.HostIPs
	} else if box := in.Actual.Ready(); box != nil {
		ips = box.IPs
	}
	if len(ips) == 0 {
		s.PodIP, s.PodIPs = in.Old.PodIP, in.Old.PodIPs
		return
	}
	s.PodIP = ips[0]
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
}

// decides: the pod has ended by its verdict. One that has succeeded in spite of it says
// so too, and that it was not at fault.
func decides(s *corev1.PodStatus, in Input) bool {
	return in.Failed != nil && (s.Phase == corev1.PodFailed || in.Failed.Yields && s.Phase == corev1.PodSucceeded)
}

// reason keeps the words that came with the phase, and brings those of a verdict.
func reason(s *corev1.PodStatus, in Input) {
	if decides(s, in) {
		s.Reason, s.Message = in.Failed.Reason, in.Failed.Message
		return
	}
	if s.Phase == in.Old.Phase {
		s.Reason, s.Message = in.Old.Reason, in.Old.Message
	}
}

// phase sums the containers up. A terminal phase is final, and it is not shown
// while a container may still run, or comes back.
func phase(in Input, s *corev1.PodStatus) corev1.PodPhase {
	old := in.Old.Phase
	if over(old) {
		return old
	}
	p := summary(in, s)
	if in.Failed != nil && !(in.Failed.Yields && p == corev1.PodSucceeded) {
		p = corev1.PodFailed
	}
	undecided := in.Failed != nil && in.Failed.Yields && !in.Ended
	// Whoever is on its way out since all containers start over will be back, whichever
	// of them it was that asked for it, and whatever the pod's policy is.
	again := in.Failed == nil && !in.Ended && startsOver(in)
	if over(p) && (again || undecided || in.Actual.Live()) {
		return cmp.Or(old, corev1.PodPending)
	}
	return p
}

// over: that phase is the last one.
func over(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// tally counts containers by where they are.
type tally struct{ waiting, running, ended, succeeded, again int }

func summary(in Input, s *corev1.PodStatus) corev1.PodPhase {
	pending, failed := initsPending(in, s)
	if failed {
		return corev1.PodFailed
	}
	var t tally
	for i := range in.Pod.Spec.Containers {
		c := &in.Pod.Spec.Containers[i]
		t.count(in, c, find(s.ContainerStatuses, c.Name))
	}
	sidecars := runningSidecars(in.Pod, s)
	total := len(in.Pod.Spec.Containers)
	switch {
	case in.Ended && !in.Actual.Live() && t.ended == 0 && t.running == 0:
		return corev1.PodFailed
	case pending || t.waiting > 0:
		if in.Ended && !in.Actual.Live() && t.ended > 0 {
			return corev1.PodFailed
		}
		return corev1.PodPending
	case t.running > 0 || sidecars > 0:
		return corev1.PodRunning
	case t.ended < total:
		return corev1.PodPending
	case t.again > 0 && !in.Ended:
		return corev1.PodRunning
	case t.succeeded == total:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

func (t *tally) count(in Input, c *corev1.Container, st *corev1.ContainerStatus) {
	ended := (*corev1.ContainerStateTerminated)(nil)
	switch {
	case st == nil:
		t.waiting++
	case st.State.Running != nil:
		t.running++
	case st.State.Terminated != nil:
		ended = st.State.Terminated
	case st.LastTerminationState.Terminated != nil:
		ended = st.LastTerminationState.Terminated
	default:
		t.waiting++
	}
	if ended == nil {
		return
	}
	t.ended++
	if ended.ExitCode == 0 {
		t.succeeded++
	}
	if in.restarts(c, ended) {
		t.again++
	}
}

// initsPending reports whether initialisation goes on, or has failed for good.
// One that runs does so in any case: what was begun before it was in a sandbox that is
// gone, or starts over.
func initsPending(in Input, s *corev1.PodStatus) (pending, failed bool) {
	began, settled := mainBegan(in), mainBeganHere(in)
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		st := find(s.InitContainerStatuses, c.Name)
		if spec.Sidecar(c) {
			up := st != nil && st.Started != nil && *st.Started
			pending = pending || (!up && !settled)
			continue
		}
		ended := terminated(st)
		switch {
		case ended == nil:
			pending = pending || !began || (st != nil && st.State.Running != nil)
		case ended.ExitCode == 0:
		case !in.restarts(c, ended):
			return pending, true
		default:
			pending = true
		}
	}
	return pending, false
}

// mainBegan: once a regular container exists initialisation is over.
func mainBegan(in Input) bool {
	for i := range in.Pod.Spec.Containers {
		if in.Actual.Latest(in.Pod.Spec.Containers[i].Name) != nil {
			return true
		}
	}
	return false
}

// mainBeganHere: it did in the sandbox that the pod has now, if it has one; a pod whose
// sandbox is made anew is initialised anew.
func mainBeganHere(in Input) bool {
	box := in.Actual.Ready()
	if box == nil {
		return mainBegan(in)
	}
	return slices.ContainsFunc(in.Pod.Spec.Containers, func(c corev1.Container) bool { return in.Actual.LatestIn(c.Name, box.ID) != nil })
}

func terminated(st *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if st == nil {
		return nil
	}
	if st.State.Terminated != nil {
		return st.State.Terminated
	}
	if st.State.Waiting != nil {
		return st.LastTerminationState.Terminated
	}
	return nil
}

func runningSidecars(pod *corev1.Pod, s *corev1.PodStatus) int {
	n := 0
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if st := find(s.InitContainerStatuses, c.Name); spec.Sidecar(c) && st != nil && st.State.Running != nil {
			n++
		}
	}
	return n
}

func find(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	i := slices.IndexFunc(list, func(s corev1.ContainerStatus) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &list[i]
}

// stamp cuts a time to what the API keeps, so that a status read back compares
// equal to the one computed.
func stamp(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.NewTime(t.Truncate(time.Second))
}
