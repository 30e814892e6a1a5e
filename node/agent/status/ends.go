package status

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/plan"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// The API takes no end of a container back that its policy doesn't start it again from:
// a status that does so is refused as a whole, and all that it says with it.

// anew turns an end that would be one for good, had the container not been killed to
// be started again, into what comes before that: the API takes no end back.
func (b *builder) anew(st *corev1.ContainerStatus) {
	ended := st.State.Terminated
	if ended == nil || b.in.Ended || plan.Restarts(b.in.Pod, b.c, ended.ExitCode) || !b.in.restarts(b.c, ended) || ended.Reason == restartingReason {
		return
	}
	st.LastTerminationState = st.State
	st.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: b.waiting}}
}

// keepEnds lets init containers that a new sandbox begins with once more stand as they
// ended the last time, until they end again.
func keepEnds(s *corev1.PodStatus, in Input) {
	if plan.MayRestartAll(in.Pod) {
		return
	}
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		st, old := find(s.InitContainerStatuses, c.Name), find(in.Old.InitContainerStatuses, c.Name)
		if spec.Sidecar(c) || st == nil || old == nil || old.State.Terminated == nil || st.State.Terminated != nil {
			continue
		}
		if !plan.Restarts(in.Pod, c, old.State.Terminated.ExitCode) {
			st.State = old.State
		}
	}
}
