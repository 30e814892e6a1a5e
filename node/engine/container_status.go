package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
)

// exitUnknown is the exit code of a container that nobody saw ending.
const exitUnknown = 255

// ContainerStatus tells what a container is doing, or how it ended.
func (e *Engine) ContainerStatus(_ context.Context, r *rt.ContainerStatusRequest) (*rt.ContainerStatusResponse, error) {
	c, err := e.container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	out := &rt.ContainerStatusResponse{Status: e.statusOf(c)}
	if r.GetVerbose() {
		st, err := e.runtime.Status(c.ID)
		if err != nil {
			st = container.Status{}
		}
		info, err := json.Marshal(map[string]any{"sandboxID": c.SandboxID, "pid": st.PID, "cgroup": st.Cgroup, "snapshot": c.snapshot()})
		if err != nil {
			return nil, coded(fmt.Errorf("container %q: encode info: %w", c.ID, err))
		}
		out.Info = map[string]string{"info": string(info)}
	}
	return out, nil
}

// life is a container's state in the CRI's words.
type life struct {
	state             rt.ContainerState
	started, finished int64
	code              int32
	reason, message   string
}

// stateOf asks the runtime. A container that the runtime does not know was lost
// with it, or is being made at this moment.
func (e *Engine) stateOf(c *ctr) life {
	st, err := e.runtime.Status(c.ID)
	if err != nil {
		return life{state: rt.ContainerState_CONTAINER_UNKNOWN, code: exitUnknown, reason: "Unknown", message: err.Error()}
	}
	l := life{started: nanoseconds(st.StartedAt), finished: nanoseconds(st.FinishedAt)}
	switch st.State {
	case container.Created:
		l.state = rt.ContainerState_CONTAINER_CREATED
	case container.Running:
		l.state = rt.ContainerState_CONTAINER_RUNNING
	default:
		l.state = rt.ContainerState_CONTAINER_EXITED
		l.code, l.message = int32(st.ExitCode), st.Error
		l.reason = exitReason(st)
	}
	return l
}

func exitReason(st container.Status) string {
	switch {
	case st.OOMKilled:
		return "OOMKilled"
	case st.Unknown:
		return "Unknown"
	case st.Error != "":
		return "StartError"
	case st.ExitCode == 0:
		return "Completed"
	}
	return "Error"
}

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// imageAsked is a container's image under the name that a person gave it: a kubelet
// asks for the image by its ID, and shows its user what it is told here.
func imageAsked(c *ctr) *rt.ImageSpec {
	asked := c.Config.GetImage()
	if name := asked.GetUserSpecifiedImage(); name != "" && name != asked.GetImage() {
		asked = proto.CloneOf(asked)
		asked.Image = name
	}
	return asked
}

func (e *Engine) statusOf(c *ctr) *rt.ContainerStatus {
	l := e.stateOf(c)
	groups := make([]int64, len(c.User.Groups))
	for i, g := range c.User.Groups {
		groups[i] = int64(g)
	}
	return &rt.ContainerStatus{
		Id: c.ID, Metadata: c.Config.GetMetadata(), State: l.state, CreatedAt: c.CreatedAt, StartedAt: l.started, FinishedAt: l.finished,
		ExitCode: l.code, Reason: l.reason, Message: l.message,
		Image: imageAsked(c), ImageRef: c.ImageRef, ImageId: c.ImageID,
		Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(), Mounts: c.Config.GetMounts(), LogPath: c.LogPath,
		Resources:  &rt.ContainerResources{Linux: c.Config.GetLinux().GetResources()},
		User:       &rt.ContainerUser{Linux: &rt.LinuxContainerUser{Uid: int64(c.User.UID), Gid: int64(c.User.GID), SupplementalGroups: groups}},
		StopSignal: signalOf(c.StopSignal),
	}
}

// statusesOf are the statuses of all containers of a sandbox.
func (e *Engine) statusesOf(sandboxID string) []*rt.ContainerStatus {
	var out []*rt.ContainerStatus
	for _, c := range e.records.containersOf(sandboxID) {
		out = append(out, e.statusOf(c))
	}
	return out
}

// signalOf is the CRI's name for a signal number.
func signalOf(n int) rt.Signal {
	name := unix.SignalName(unix.Signal(n))
	switch {
	case n == rtMin:
		name = "SIGRTMIN"
	case n == rtMax:
		name = "SIGRTMAX"
	case n > rtMin && n <= rtMin+15:
		name = fmt.Sprintf("SIGRTMINPLUS%d", n-rtMin)
	case n > rtMin && n < rtMax:
		name = fmt.Sprintf("SIGRTMAXMINUS%d", rtMax-n)
	}
	return rt.Signal(rt.Signal_value["SIGNAL_"+strings.ToUpper(name)])
}

// The real-time signals that programs may use.
const rtMin, rtMax = 34, 64
