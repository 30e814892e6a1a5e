package hollow

import (
	"context"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// tell publishes an event; the caller holds mu.
func (e *engine) tell(b *sandbox, id string, what rt.ContainerEventType) {
	ev := &rt.ContainerEventResponse{ContainerId: id, ContainerEventType: what, CreatedAt: time.Now().UnixNano(), PodSandboxStatus: b.status()}
	for sub := range e.subs {
		select {
		case sub <- ev:
		default:
			delete(e.subs, sub)
			close(sub)
		}
	}
}

// backlog is how many events may wait for a node's agent, enough for a few pods'
// starts. One that falls further behind is cut off, asks again and looks at all pods.
const backlog = 64

// Events implements cri.Engine.
func (e *engine) Events(ctx context.Context) (<-chan *rt.ContainerEventResponse, error) {
	sub := make(chan *rt.ContainerEventResponse, backlog)
	e.mu.Lock()
	e.subs[sub] = true
	e.mu.Unlock()
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.subs[sub] {
			delete(e.subs, sub)
			close(sub)
		}
	})
	return sub, nil
}

// Version implements cri.Engine.
func (*engine) Version(context.Context, *rt.VersionRequest) (*rt.VersionResponse, error) {
	return &rt.VersionResponse{Version: "v1", RuntimeName: "hollow", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status implements cri.Engine.
func (*engine) Status(context.Context, *rt.StatusRequest) (*rt.StatusResponse, error) {
	return &rt.StatusResponse{Status: &rt.RuntimeStatus{Conditions: []*rt.RuntimeCondition{
		{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}}}}, nil
}

// UpdateRuntimeConfig implements cri.Engine.
func (*engine) UpdateRuntimeConfig(context.Context, *rt.UpdateRuntimeConfigRequest) (*rt.UpdateRuntimeConfigResponse, error) {
	return &rt.UpdateRuntimeConfigResponse{}, nil
}

// RuntimeConfig implements cri.Engine.
func (*engine) RuntimeConfig(context.Context, *rt.RuntimeConfigRequest) (*rt.RuntimeConfigResponse, error) {
	return &rt.RuntimeConfigResponse{Linux: &rt.LinuxRuntimeConfiguration{CgroupDriver: rt.CgroupDriver_CGROUPFS}}, nil
}

// UpdateContainerResources implements cri.Engine.
func (*engine) UpdateContainerResources(context.Context, *rt.UpdateContainerResourcesRequest) (*rt.UpdateContainerResourcesResponse, error) {
	return &rt.UpdateContainerResourcesResponse{}, nil
}

// ReopenContainerLog implements cri.Engine.
func (*engine) ReopenContainerLog(context.Context, *rt.ReopenContainerLogRequest) (*rt.ReopenContainerLogResponse, error) {
	return &rt.ReopenContainerLogResponse{}, nil
}

// ListImages implements cri.Engine: every image is there, and none is listed.
func (*engine) ListImages(context.Context, *rt.ListImagesRequest) (*rt.ListImagesResponse, error) {
	return &rt.ListImagesResponse{}, nil
}

// ImageStatus implements cri.Engine.
func (*engine) ImageStatus(_ context.Context, r *rt.ImageStatusRequest) (*rt.ImageStatusResponse, error) {
	name := r.GetImage().GetImage()
	return &rt.ImageStatusResponse{Image: &rt.Image{Id: name, RepoTags: []string{name}, Size: 1}}, nil
}

// PullImage implements cri.Engine.
func (*engine) PullImage(_ context.Context, r *rt.PullImageRequest) (*rt.PullImageResponse, error) {
	return &rt.PullImageResponse{ImageRef: r.GetImage().GetImage()}, nil
}

// RemoveImage implements cri.Engine.
func (*engine) RemoveImage(context.Context, *rt.RemoveImageRequest) (*rt.RemoveImageResponse, error) {
	return &rt.RemoveImageResponse{}, nil
}

// ImageFsInfo implements cri.Engine.
func (*engine) ImageFsInfo(context.Context, *rt.ImageFsInfoRequest) (*rt.ImageFsInfoResponse, error) {
	return &rt.ImageFsInfoResponse{}, nil
}

// ListPodSandboxStats implements cri.Engine: nothing is used.
func (*engine) ListPodSandboxStats(context.Context, *rt.ListPodSandboxStatsRequest) (*rt.ListPodSandboxStatsResponse, error) {
	return &rt.ListPodSandboxStatsResponse{}, nil
}

// ListContainerStats implements cri.Engine: nothing is used.
func (*engine) ListContainerStats(context.Context, *rt.ListContainerStatsRequest) (*rt.ListContainerStatsResponse, error) {
	return &rt.ListContainerStatsResponse{}, nil
}

// What needs a process can't be had.

// ExecSync implements cri.Engine.
func (*engine) ExecSync(context.Context, *rt.ExecSyncRequest) (*rt.ExecSyncResponse, error) {
	return nil, cri.Unimplemented("processes")
}

// ContainerStats implements cri.Engine.
func (*engine) ContainerStats(context.Context, *rt.ContainerStatsRequest) (*rt.ContainerStatsResponse, error) {
	return nil, cri.Unimplemented("stats")
}

// PodSandboxStats implements cri.Engine.
func (*engine) PodSandboxStats(context.Context, *rt.PodSandboxStatsRequest) (*rt.PodSandboxStatsResponse, error) {
	return nil, cri.Unimplemented("stats")
}

// Attach implements cri.Engine.
func (*engine) Attach(context.Context, *rt.AttachRequest) (*rt.AttachResponse, error) {
	return nil, cri.Unimplemented("streams")
}

// PortForward implements cri.Engine.
func (*engine) PortForward(context.Context, *rt.PortForwardRequest) (*rt.PortForwardResponse, error) {
	return nil, cri.Unimplemented("streams")
}

// Exec implements cri.Engine.
func (*engine) Exec(context.Context, *rt.ExecRequest) (*rt.ExecResponse, error) {
	return nil, cri.Unimplemented("streams")
}
