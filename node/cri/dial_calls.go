package cri

import (
	"context"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// These are one line a call: an Engine's side of the wire. Each does what its
// namesake in Engine promises, as well as the other side keeps that promise.

// Version asks the remote engine.
func (r *Remote) Version(ctx context.Context, in *rt.VersionRequest) (*rt.VersionResponse, error) {
	return r.runtime.Version(ctx, in)
}

// Status asks the remote engine.
func (r *Remote) Status(ctx context.Context, in *rt.StatusRequest) (*rt.StatusResponse, error) {
	return r.runtime.Status(ctx, in)
}

// UpdateRuntimeConfig asks the remote engine.
func (r *Remote) UpdateRuntimeConfig(ctx context.Context, in *rt.UpdateRuntimeConfigRequest) (*rt.UpdateRuntimeConfigResponse, error) {
	return r.runtime.UpdateRuntimeConfig(ctx, in)
}

// RuntimeConfig asks the remote engine.
func (r *Remote) RuntimeConfig(ctx context.Context, in *rt.RuntimeConfigRequest) (*rt.RuntimeConfigResponse, error) {
	return r.runtime.RuntimeConfig(ctx, in)
}

// RunPodSandbox asks the remote engine.
func (r *Remote) RunPodSandbox(ctx context.Context, in *rt.RunPodSandboxRequest) (*rt.RunPodSandboxResponse, error) {
	return r.runtime.RunPodSandbox(ctx, in)
}

// StopPodSandbox asks the remote engine.
func (r *Remote) StopPodSandbox(ctx context.Context, in *rt.StopPodSandboxRequest) (*rt.StopPodSandboxResponse, error) {
	return r.runtime.StopPodSandbox(ctx, in)
}

// RemovePodSandbox asks the remote engine.
func (r *Remote) RemovePodSandbox(ctx context.Context, in *rt.RemovePodSandboxRequest) (*rt.RemovePodSandboxResponse, error) {
	return r.runtime.RemovePodSandbox(ctx, in)
}

// PodSandboxStatus asks the remote engine.
func (r *Remote) PodSandboxStatus(ctx context.Context, in *rt.PodSandboxStatusRequest) (*rt.PodSandboxStatusResponse, error) {
	return r.runtime.PodSandboxStatus(ctx, in)
}

// ListPodSandbox asks the remote engine.
func (r *Remote) ListPodSandbox(ctx context.Context, in *rt.ListPodSandboxRequest) (*rt.ListPodSandboxResponse, error) {
	return r.runtime.ListPodSandbox(ctx, in)
}

// UpdatePodSandboxResources asks the remote engine.
func (r *Remote) UpdatePodSandboxResources(ctx context.Context, in *rt.UpdatePodSandboxResourcesRequest) (*rt.UpdatePodSandboxResourcesResponse, error) {
	return r.runtime.UpdatePodSandboxResources(ctx, in)
}

// CreateContainer asks the remote engine.
func (r *Remote) CreateContainer(ctx context.Context, in *rt.CreateContainerRequest) (*rt.CreateContainerResponse, error) {
	return r.runtime.CreateContainer(ctx, in)
}

// StartContainer asks the remote engine.
func (r *Remote) StartContainer(ctx context.Context, in *rt.StartContainerRequest) (*rt.StartContainerResponse, error) {
	return r.runtime.StartContainer(ctx, in)
}

// StopContainer asks the remote engine.
func (r *Remote) StopContainer(ctx context.Context, in *rt.StopContainerRequest) (*rt.StopContainerResponse, error) {
	return r.runtime.StopContainer(ctx, in)
}

// RemoveContainer asks the remote engine.
func (r *Remote) RemoveContainer(ctx context.Context, in *rt.RemoveContainerRequest) (*rt.RemoveContainerResponse, error) {
	return r.runtime.RemoveContainer(ctx, in)
}

// ListContainers asks the remote engine.
func (r *Remote) ListContainers(ctx context.Context, in *rt.ListContainersRequest) (*rt.ListContainersResponse, error) {
	return r.runtime.ListContainers(ctx, in)
}

// ContainerStatus asks the remote engine.
func (r *Remote) ContainerStatus(ctx context.Context, in *rt.ContainerStatusRequest) (*rt.ContainerStatusResponse, error) {
	return r.runtime.ContainerStatus(ctx, in)
}

// UpdateContainerResources asks the remote engine.
func (r *Remote) UpdateContainerResources(ctx context.Context, in *rt.UpdateContainerResourcesRequest) (*rt.UpdateContainerResourcesResponse, error) {
	return r.runtime.UpdateContainerResources(ctx, in)
}

// ReopenContainerLog asks the remote engine.
func (r *Remote) ReopenContainerLog(ctx context.Context, in *rt.ReopenContainerLogRequest) (*rt.ReopenContainerLogResponse, error) {
	return r.runtime.ReopenContainerLog(ctx, in)
}

// ExecSync asks the remote engine.
func (r *Remote) ExecSync(ctx context.Context, in *rt.ExecSyncRequest) (*rt.ExecSyncResponse, error) {
	return r.runtime.ExecSync(ctx, in)
}

// Exec asks the remote engine.
func (r *Remote) Exec(ctx context.Context, in *rt.ExecRequest) (*rt.ExecResponse, error) {
	return r.runtime.Exec(ctx, in)
}

// Attach asks the remote engine.
func (r *Remote) Attach(ctx context.Context, in *rt.AttachRequest) (*rt.AttachResponse, error) {
	return r.runtime.Attach(ctx, in)
}

// PortForward asks the remote engine.
func (r *Remote) PortForward(ctx context.Context, in *rt.PortForwardRequest) (*rt.PortForwardResponse, error) {
	return r.runtime.PortForward(ctx, in)
}

// ContainerStats asks the remote engine.
func (r *Remote) ContainerStats(ctx context.Context, in *rt.ContainerStatsRequest) (*rt.ContainerStatsResponse, error) {
	return r.runtime.ContainerStats(ctx, in)
}

// ListContainerStats asks the remote engine.
func (r *Remote) ListContainerStats(ctx context.Context, in *rt.ListContainerStatsRequest) (*rt.ListContainerStatsResponse, error) {
	return r.runtime.ListContainerStats(ctx, in)
}

// PodSandboxStats asks the remote engine.
func (r *Remote) PodSandboxStats(ctx context.Context, in *rt.PodSandboxStatsRequest) (*rt.PodSandboxStatsResponse, error) {
	return r.runtime.PodSandboxStats(ctx, in)
}

// ListPodSandboxStats asks the remote engine.
func (r *Remote) ListPodSandboxStats(ctx context.Context, in *rt.ListPodSandboxStatsRequest) (*rt.ListPodSandboxStatsResponse, error) {
	return r.runtime.ListPodSandboxStats(ctx, in)
}

// ListImages asks the remote engine.
func (r *Remote) ListImages(ctx context.Context, in *rt.ListImagesRequest) (*rt.ListImagesResponse, error) {
	return r.image.ListImages(ctx, in)
}

// ImageStatus asks the remote engine.
func (r *Remote) ImageStatus(ctx context.Context, in *rt.ImageStatusRequest) (*rt.ImageStatusResponse, error) {
	return r.image.ImageStatus(ctx, in)
}

// PullImage asks the remote engine.
func (r *Remote) PullImage(ctx context.Context, in *rt.PullImageRequest) (*rt.PullImageResponse, error) {
	return r.image.PullImage(ctx, in)
}

// RemoveImage asks the remote engine.
func (r *Remote) RemoveImage(ctx context.Context, in *rt.RemoveImageRequest) (*rt.RemoveImageResponse, error) {
	return r.image.RemoveImage(ctx, in)
}

// ImageFsInfo asks the remote engine.
func (r *Remote) ImageFsInfo(ctx context.Context, in *rt.ImageFsInfoRequest) (*rt.ImageFsInfoResponse, error) {
	return r.image.ImageFsInfo(ctx, in)
}
