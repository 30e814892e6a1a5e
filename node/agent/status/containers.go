package status

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// What is said of a container that was running and of which the engine knows
// nothing any more; texts and code are upstream's.
const (
	lostReason  = "ContainerStatusUnknown"
	lostMessage = "The container could not be located when the pod was terminated"
	// lostBefore is the message in the last state of a container that is to run
	// again.
	lostBefore = "The container could not be located when the pod was deleted.  The container used to be Running"
	lostCode   = 137
	// doneMessage is said of an init container that is not there any more though
	// what comes after it is.
	doneMessage = "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
)

// containers fills the three lists of container statuses.
func containers(s *corev1.PodStatus, in Input) {
	waiting := "ContainerCreating"
	if len(in.Pod.Spec.InitContainers) > 0 {
		waiting = "PodInitializing"
	}
	one := func(c *corev1.Container, old []corev1.ContainerStatus) corev1.ContainerStatus {
		b := builder{in: in, c: c, old: find(old, c.Name), waiting: waiting}
		st := b.build()
		if in.Allocated != nil {
			st.AllocatedResourcesStatus = in.Allocated(c.Name)
		}
		return st
	}
	for i := range in.Pod.Spec.InitContainers {
		s.InitContainerStatuses = append(s.InitContainerStatuses, one(&in.Pod.Spec.InitContainers[i], in.Old.InitContainerStatuses))
	}
	for i := range in.Pod.Spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, one(&in.Pod.Spec.Containers[i], in.Old.ContainerStatuses))
	}
	for i := range in.Pod.Spec.EphemeralContainers {
		c := (*corev1.Container)(&in.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		st := one(c, in.Old.EphemeralContainerStatuses)
		st.Ready = false
		s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, st)
	}
	slices.SortFunc(s.ContainerStatuses, func(a, b corev1.ContainerStatus) int { return strings.Compare(a.Name, b.Name) })
}

// builder makes one container's status.
type builder struct {
	in      Input
	c       *corev1.Container
	old     *corev1.ContainerStatus
	waiting string
}

func (b *builder) build() corev1.ContainerStatus {
	now := b.in.Actual.Latest(b.c.Name)
	st := corev1.ContainerStatus{Name: b.c.Name, Image: b.c.Image}
	if now == nil {
		b.absent(&st)
	} else {
		b.present(&st, now)
	}
	b.held(&st)
	b.anew(&st)
	b.probed(&st, now)
	b.mounts(&st)
	return st
}

// absent: the engine has no such container (yet, or any more).
func (b *builder) absent(st *corev1.ContainerStatus) {
	st.State.Waiting = &corev1.ContainerStateWaiting{Reason: b.waiting}
	if b.plainInit() && mainBegan(b.in) && !startsOver(b.in) && (b.old == nil || b.old.State.Waiting != nil) {
		st.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", Message: doneMessage}}
	}
	if b.old == nil {
		return
	}
	st.RestartCount, st.LastTerminationState = b.old.RestartCount, b.old.LastTerminationState
	switch {
	case b.old.State.Waiting == nil && startsOver(b.in):
		st.State.Waiting = &corev1.ContainerStateWaiting{Reason: restartingReason, Message: restartingMessage}
		st.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{Reason: restartingReason, Message: restartingMessage, ExitCode: lostCode}
		st.RestartCount = b.old.RestartCount + 1
	case b.old.State.Terminated != nil:
		st.State, st.ContainerID, st.ImageID, st.Image = b.old.State, b.old.ContainerID, b.old.ImageID, b.old.Image
	case b.old.State.Running != nil:
		lost := &corev1.ContainerStateTerminated{
			Reason: lostReason, Message: lostMessage, ExitCode: lostCode,
			StartedAt: b.old.State.Running.StartedAt, FinishedAt: stamp(b.in.Now), ContainerID: b.old.ContainerID,
		}
		if b.in.Ended {
			st.State, st.ContainerID, st.ImageID = corev1.ContainerState{Terminated: lost}, b.old.ContainerID, b.old.ImageID
			return
		}
		lost.Message = lostBefore
		st.LastTerminationState = corev1.ContainerState{Terminated: lost}
		st.RestartCount = NextAttempt(b.old)
	default:
		st.RestartCount = NextAttempt(b.old)
	}
}

// Words about containers that were removed because all start over.
const (
	restartingReason  = "RestartingAllContainers"
	restartingMessage = "The container is removed because RestartAllContainers in place"
)

// startsOver: what is not there was removed, or is being, since all containers start
// over. The last of them may be gone by now; then the old status tells.
func startsOver(in Input) bool {
	if !plan.MayRestartAll(in.Pod) {
		return false
	}
	if plan.Resetting(in.Pod, in.Actual) {
		return true
	}
	for _, c := range in.Old.Conditions {
		if c.Type == corev1.AllContainersRestarting && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	for _, c := range spec.Containers(in.Pod) {
		for _, list := range [][]corev1.ContainerStatus{in.Old.InitContainerStatuses, in.Old.ContainerStatuses} {
			if st := find(list, c.Name); st != nil && st.State.Terminated != nil && plan.RestartsAll(c, st.State.Terminated.ExitCode) {
				return true
			}
		}
	}
	return false
}

// restarts: the container comes back after that end.
func (in *Input) restarts(c *corev1.Container, ended *corev1.ContainerStateTerminated) bool {
	id := strings.TrimPrefix(ended.ContainerID, in.Runtime+"://")
	return ended.Reason == restartingReason || in.Killed[id] || plan.Restarts(in.Pod, c, ended.ExitCode)
}

// NextAttempt is the restart count that a container gets which is started now,
// going by its last known status: so counts go on when the engine has forgotten
// what ran.
func NextAttempt(old *corev1.ContainerStatus) int32 {
	ran := old.State.Running != nil || old.State.Terminated != nil
	if last := old.LastTerminationState.Terminated; last != nil && last.ContainerID != "" && last.ContainerID == old.ContainerID {
		ran = true // it is held back, and waits as the one that ended
	}
	if ran {
		return old.RestartCount + 1
	}
	return old.RestartCount
}

// present: the newest container gives the state, the one before it the last.
func (b *builder) present(st *corev1.ContainerStatus, now *actual.Container) {
	st.RestartCount = now.Attempt
	st.ContainerID = b.id(now)
	st.ImageID = now.ImageID
	if now.Image != "" {
		st.Image = now.Image
	}
	st.State = b.state(now)
	st.Resources = b.c.Resources.DeepCopy()
	if have, ok := given(b.in, b.c); ok {
		st.Resources = have.Own.DeepCopy()
	}
	st.AllocatedResources = b.c.Resources.DeepCopy().Requests
	if now.User != nil {
		st.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{
			UID: now.User.UID, GID: now.User.GID, SupplementalGroups: now.User.Supplemental,
		}}
	}
	if before := b.before(now); before != nil {
		st.LastTerminationState = b.state(before)
	} else if b.old != nil && now.Attempt > 0 {
		st.LastTerminationState = b.old.LastTerminationState
		if b.old.State.Terminated != nil && b.old.ContainerID != st.ContainerID {
			st.LastTerminationState = b.old.State
		}
	}
}

func (b *builder) id(c *actual.Container) string { return b.in.Runtime + "://" + c.ID }

func (b *builder) before(now *actual.Container) *actual.Container {
	for i := range b.in.Actual.Containers {
		c := &b.in.Actual.Containers[i]
		if c.Name == now.Name && c.ID != now.ID && c.State == actual.Exited {
			return c
		}
	}
	return nil
}

func (b *builder) state(c *actual.Container) corev1.ContainerState {
	switch c.State {
	case actual.Running:
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: stamp(c.Started)}}
	case actual.Exited:
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: c.ExitCode, Reason: exitReason(c), Message: b.message(c),
			StartedAt: begun(c), FinishedAt: stamp(c.Finished), ContainerID: b.id(c),
		}}
	}
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: b.waiting}}
}

// begun is when a container that has ended was started. One that could not be has
// the engine's zero, which is 1970 to clients: an end without a beginning would
// confuse them.
func begun(c *actual.Container) metav1.Time {
	if c.Started.IsZero() {
		return metav1.NewTime(time.Unix(0, 0))
	}
	return stamp(c.Started)
}

// message is what the container left to be said. Its file goes with the pod's
// volumes; what was told then still stands.
func (b *builder) message(c *actual.Container) string {
	if c.Message != "" || b.old == nil {
		return c.Message
	}
	for _, told := range []*corev1.ContainerStateTerminated{b.old.State.Terminated, b.old.LastTerminationState.Terminated} {
		if told != nil && told.ContainerID == b.id(c) {
			return told.Message
		}
	}
	return ""
}

func exitReason(c *actual.Container) string {
	switch {
	case c.Reason != "":
		return c.Reason
	case c.ExitCode == 0:
		return "Completed"
	}
	return "Error"
}

// held turns the state into Waiting for a container that is kept from starting;
// what it ended with becomes its last state.
func (b *builder) held(st *corev1.ContainerStatus) {
	w, ok := b.in.Waiting[b.c.Name]
	if !ok || b.in.Ended || st.State.Running != nil {
		return
	}
	if ended := st.State.Terminated; ended != nil {
		if !b.in.restarts(b.c, ended) {
			return
		}
		st.LastTerminationState = st.State
	}
	st.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}}
}

// probed sets ready and started.
func (b *builder) probed(st *corev1.ContainerStatus, now *actual.Container) {
	running := st.State.Running != nil && now != nil
	started := running && b.in.Started(b.c, now.ID)
	st.Started = &started
	st.Ready = running && started && b.in.Ready(b.c, now.ID)
	if ended := st.State.Terminated; b.plainInit() {
		// An init container is ready when it has done its work.
		st.Ready = ended != nil && ended.ExitCode == 0
		st.Started = new(bool)
		*st.Started = running
	}
}

func (b *builder) plainInit() bool {
	if spec.Sidecar(b.c) {
		return false
	}
	return slices.ContainsFunc(b.in.Pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == b.c.Name })
}

func (b *builder) mounts(st *corev1.ContainerStatus) {
	for _, m := range b.c.VolumeMounts {
		v := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if b.throughout(&m) {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			v.RecursiveReadOnly = &mode
		}
		st.VolumeMounts = append(st.VolumeMounts, v)
	}
}

// throughout: a mount is read-only all the way down. An agent that does not know yet
// what the engine can do goes by what was said before.
func (b *builder) throughout(m *corev1.VolumeMount) bool {
	if b.in.Throughout != nil {
		is, err := spec.Throughout(m, *b.in.Throughout)
		return is && err == nil // the container that could not be made tells the error
	}
	return spec.AsksThroughout(m) && b.old != nil && slices.ContainsFunc(b.old.VolumeMounts, func(old corev1.VolumeMountStatus) bool {
		return old.MountPath == m.MountPath && old.RecursiveReadOnly != nil && *old.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled
	})
}
