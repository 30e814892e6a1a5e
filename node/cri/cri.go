// Package cri is the contract between the node agent and a container engine:
// the Container Runtime Interface v1, as one Go interface. The built-in engine
// implements it in-process; Dial gives the same interface over gRPC to
// containerd or CRI-O, and Serve offers any Engine on a unix socket.
//
// Messages are upstream's own (k8s.io/cri-api). Errors carry gRPC status codes
// (codes.NotFound and so on) in-process too, so that a caller sees no difference.
package cri

import (
	"context"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Engine answers the CRI. Methods may be called concurrently, and each follows
// the protobuf comment of its call: StopPodSandbox, RemovePodSandbox,
// StopContainer and RemoveContainer are idempotent and succeed when the thing is
// already gone.
type Engine interface {
	Sandboxes
	Containers
	Streams
	Stats
	Images

	Version(context.Context, *rt.VersionRequest) (*rt.VersionResponse, error)
	Status(context.Context, *rt.StatusRequest) (*rt.StatusResponse, error)
	UpdateRuntimeConfig(context.Context, *rt.UpdateRuntimeConfigRequest) (*rt.UpdateRuntimeConfigResponse, error)
	RuntimeConfig(context.Context, *rt.RuntimeConfigRequest) (*rt.RuntimeConfigResponse, error)
	// Events delivers container and sandbox lifecycle events until ctx ends.
	// A subscriber that falls MaxEventBacklog behind has its channel closed and
	// must list again.
	Events(ctx context.Context) (<-chan *rt.ContainerEventResponse, error)
}

// MaxEventBacklog is how many events a slow subscriber may fall behind.
const MaxEventBacklog = 1024

// Sandboxes are the calls about pod sandboxes.
type Sandboxes interface {
	RunPodSandbox(context.Context, *rt.RunPodSandboxRequest) (*rt.RunPodSandboxResponse, error)
	StopPodSandbox(context.Context, *rt.StopPodSandboxRequest) (*rt.StopPodSandboxResponse, error)
	RemovePodSandbox(context.Context, *rt.RemovePodSandboxRequest) (*rt.RemovePodSandboxResponse, error)
	PodSandboxStatus(context.Context, *rt.PodSandboxStatusRequest) (*rt.PodSandboxStatusResponse, error)
	ListPodSandbox(context.Context, *rt.ListPodSandboxRequest) (*rt.ListPodSandboxResponse, error)
	// UpdatePodSandboxResources changes the limits of all of a pod together. What
	// the request leaves at zero stays as it is.
	UpdatePodSandboxResources(context.Context, *rt.UpdatePodSandboxResourcesRequest) (*rt.UpdatePodSandboxResourcesResponse, error)
}

// Containers are the calls about containers.
type Containers interface {
	CreateContainer(context.Context, *rt.CreateContainerRequest) (*rt.CreateContainerResponse, error)
	StartContainer(context.Context, *rt.StartContainerRequest) (*rt.StartContainerResponse, error)
	StopContainer(context.Context, *rt.StopContainerRequest) (*rt.StopContainerResponse, error)
	RemoveContainer(context.Context, *rt.RemoveContainerRequest) (*rt.RemoveContainerResponse, error)
	ListContainers(context.Context, *rt.ListContainersRequest) (*rt.ListContainersResponse, error)
	ContainerStatus(context.Context, *rt.ContainerStatusRequest) (*rt.ContainerStatusResponse, error)
	UpdateContainerResources(context.Context, *rt.UpdateContainerResourcesRequest) (*rt.UpdateContainerResourcesResponse, error)
	ReopenContainerLog(context.Context, *rt.ReopenContainerLogRequest) (*rt.ReopenContainerLogResponse, error)
	ExecSync(context.Context, *rt.ExecSyncRequest) (*rt.ExecSyncResponse, error)
}

// Streams are the calls that hand out a URL where a stream can be had.
type Streams interface {
	Exec(context.Context, *rt.ExecRequest) (*rt.ExecResponse, error)
	Attach(context.Context, *rt.AttachRequest) (*rt.AttachResponse, error)
	PortForward(context.Context, *rt.PortForwardRequest) (*rt.PortForwardResponse, error)
}

// Stats are the calls about resource usage.
type Stats interface {
	ContainerStats(context.Context, *rt.ContainerStatsRequest) (*rt.ContainerStatsResponse, error)
	ListContainerStats(context.Context, *rt.ListContainerStatsRequest) (*rt.ListContainerStatsResponse, error)
	PodSandboxStats(context.Context, *rt.PodSandboxStatsRequest) (*rt.PodSandboxStatsResponse, error)
	ListPodSandboxStats(context.Context, *rt.ListPodSandboxStatsRequest) (*rt.ListPodSandboxStatsResponse, error)
}

// Images are the calls of the image service.
type Images interface {
	ListImages(context.Context, *rt.ListImagesRequest) (*rt.ListImagesResponse, error)
	ImageStatus(context.Context, *rt.ImageStatusRequest) (*rt.ImageStatusResponse, error)
	PullImage(context.Context, *rt.PullImageRequest) (*rt.PullImageResponse, error)
	RemoveImage(context.Context, *rt.RemoveImageRequest) (*rt.RemoveImageResponse, error)
	ImageFsInfo(context.Context, *rt.ImageFsInfoRequest) (*rt.ImageFsInfoResponse, error)
}
