package cri

import (
	"context"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Observe is an Engine that tells seen of every call of e: its name in the form of
// the kubelet's metrics, how long it took and what came of it. What else e can do
// beside an Engine is not seen through it.
func Observe(e Engine, seen func(operation string, took time.Duration, err error)) Engine {
	return &observed{e, seen}
}

type observed struct {
	Engine
	seen func(operation string, took time.Duration, err error)
}

// watch makes one call.
func watch[Q, A any](ctx context.Context, o *observed, operation string, call func(context.Context, Q) (A, error), q Q) (A, error) {
	begin := time.Now()
	answer, err := call(ctx, q)
	o.seen(operation, time.Since(begin), err)
	return answer, err
}

// Version implements Engine.
func (o *observed) Version(ctx context.Context, r *rt.VersionRequest) (*rt.VersionResponse, error) {
	return watch(ctx, o, "version", o.Engine.Version, r)
}

// Status implements Engine.
func (o *observed) Status(ctx context.Context, r *rt.StatusRequest) (*rt.StatusResponse, error) {
	return watch(ctx, o, "status", o.Engine.Status, r)
}

// UpdateRuntimeConfig implements Engine.
func (o *observed) UpdateRuntimeConfig(ctx context.Context, r *rt.UpdateRuntimeConfigRequest) (*rt.UpdateRuntimeConfigResponse, error) {
	return watch(ctx, o, "update_runtime_config", o.Engine.UpdateRuntimeConfig, r)
}

// RuntimeConfig implements Engine.
func (o *observed) RuntimeConfig(ctx context.Context, r *rt.RuntimeConfigRequest) (*rt.RuntimeConfigResponse, error) {
	return watch(ctx, o, "runtime_config", o.Engine.RuntimeConfig, r)
}

// RunPodSandbox implements Engine.
func (o *observed) RunPodSandbox(ctx context.Context, r *rt.RunPodSandboxRequest) (*rt.RunPodSandboxResponse, error) {
	return watch(ctx, o, "run_podsandbox", o.Engine.RunPodSandbox, r)
}

// StopPodSandbox implements Engine.
func (o *observed) StopPodSandbox(ctx context.Context, r *rt.StopPodSandboxRequest) (*rt.StopPodSandboxResponse, error) {
	return watch(ctx, o, "stop_podsandbox", o.Engine.StopPodSandbox, r)
}

// RemovePodSandbox implements Engine.
func (o *observed) RemovePodSandbox(ctx context.Context, r *rt.RemovePodSandboxRequest) (*rt.RemovePodSandboxResponse, error) {
	return watch(ctx, o, "remove_podsandbox", o.Engine.RemovePodSandbox, r)
}

// PodSandboxStatus implements Engine.
func (o *observed) PodSandboxStatus(ctx context.Context, r *rt.PodSandboxStatusRequest) (*rt.PodSandboxStatusResponse, error) {
	return watch(ctx, o, "podsandbox_status", o.Engine.PodSandboxStatus, r)
}

// ListPodSandbox implements Engine.
func (o *observed) ListPodSandbox(ctx context.Context, r *rt.ListPodSandboxRequest) (*rt.ListPodSandboxResponse, error) {
	return watch(ctx, o, "list_podsandbox", o.Engine.ListPodSandbox, r)
}

// UpdatePodSandboxResources implements Engine.
func (o *observed) UpdatePodSandboxResources(ctx context.Context, r *rt.UpdatePodSandboxResourcesRequest) (*rt.UpdatePodSandboxResourcesResponse, error) {
	return watch(ctx, o, "update_podsandbox_resources", o.Engine.UpdatePodSandboxResources, r)
}

// CreateContainer implements Engine.
func (o *observed) CreateContainer(ctx context.Context, r *rt.CreateContainerRequest) (*rt.CreateContainerResponse, error) {
	return watch(ctx, o, "create_container", o.Engine.CreateContainer, r)
}

// StartContainer implements Engine.
func (o *observed) StartContainer(ctx context.Context, r *rt.StartContainerRequest) (*rt.StartContainerResponse, error) {
	return watch(ctx, o, "start_container", o.Engine.StartContainer, r)
}

// StopContainer implements Engine.
func (o *observed) StopContainer(ctx context.Context, r *rt.StopContainerRequest) (*rt.StopContainerResponse, error) {
	return watch(ctx, o, "stop_container", o.Engine.StopContainer, r)
}

// RemoveContainer implements Engine.
func (o *observed) RemoveContainer(ctx context.Context, r *rt.RemoveContainerRequest) (*rt.RemoveContainerResponse, error) {
	return watch(ctx, o, "remove_container", o.Engine.RemoveContainer, r)
}

// ListContainers implements Engine.
func (o *observed) ListContainers(ctx context.Context, r *rt.ListContainersRequest) (*rt.ListContainersResponse, error) {
	return watch(ctx, o, "list_containers", o.Engine.ListContainers, r)
}

// ContainerStatus implements Engine.
func (o *observed) ContainerStatus(ctx context.Context, r *rt.ContainerStatusRequest) (*rt.ContainerStatusResponse, error) {
	return watch(ctx, o, "container_status", o.Engine.ContainerStatus, r)
}

// UpdateContainerResources implements Engine.
func (o *observed) UpdateContainerResources(ctx context.Context, r *rt.UpdateContainerResourcesRequest) (*rt.UpdateContainerResourcesResponse, error) {
	return watch(ctx, o, "update_container", o.Engine.UpdateContainerResources, r)
}

// ReopenContainerLog implements Engine.
func (o *observed) ReopenContainerLog(ctx context.Context, r *rt.ReopenContainerLogRequest) (*rt.ReopenContainerLogResponse, error) {
	return watch(ctx, o, "reopen_container_log", o.Engine.ReopenContainerLog, r)
}

// ExecSync implements Engine.
func (o *observed) ExecSync(ctx context.Context, r *rt.ExecSyncRequest) (*rt.ExecSyncResponse, error) {
	return watch(ctx, o, "exec_sync", o.Engine.ExecSync, r)
}

// Exec implements Engine.
func (o *observed) Exec(ctx context.Context, r *rt.ExecRequest) (*rt.ExecResponse, error) {
	return watch(ctx, o, "exec", o.Engine.Exec, r)
}

// Attach implements Engine.
func (o *observed) Attach(ctx context.Context, r *rt.AttachRequest) (*rt.AttachResponse, error) {
	return watch(ctx, o, "attach", o.Engine.Attach, r)
}

// PortForward implements Engine.
func (o *observed) PortForward(ctx context.Context, r *rt.PortForwardRequest) (*rt.PortForwardResponse, error) {
	return watch(ctx, o, "port_forward", o.Engine.PortForward, r)
}

// ContainerStats implements Engine.
func (o *observed) ContainerStats(ctx context.Context, r *rt.ContainerStatsRequest) (*rt.ContainerStatsResponse, error) {
	return watch(ctx, o, "container_stats", o.Engine.ContainerStats, r)
}

// ListContainerStats implements Engine.
func (o *observed) ListContainerStats(ctx context.Context, r *rt.ListContainerStatsRequest) (*rt.ListContainerStatsResponse, error) {
	return watch(ctx, o, "list_container_stats", o.Engine.ListContainerStats, r)
}

// PodSandboxStats implements Engine.
func (o *observed) PodSandboxStats(ctx context.Context, r *rt.PodSandboxStatsRequest) (*rt.PodSandboxStatsResponse, error) {
	return watch(ctx, o, "podsandbox_stats", o.Engine.PodSandboxStats, r)
}

// ListPodSandboxStats implements Engine.
func (o *observed) ListPodSandboxStats(ctx context.Context, r *rt.ListPodSandboxStatsRequest) (*rt.ListPodSandboxStatsResponse, error) {
	return watch(ctx, o, "list_podsandbox_stats", o.Engine.ListPodSandboxStats, r)
}

// ListImages implements Engine.
func (o *observed) ListImages(ctx context.Context, r *rt.ListImagesRequest) (*rt.ListImagesResponse, error) {
	return watch(ctx, o, "list_images", o.Engine.ListImages, r)
}

// ImageStatus implements Engine.
func (o *observed) ImageStatus(ctx context.Context, r *rt.ImageStatusRequest) (*rt.ImageStatusResponse, error) {
	return watch(ctx, o, "image_status", o.Engine.ImageStatus, r)
}

// PullImage implements Engine.
func (o *observed) PullImage(ctx context.Context, r *rt.PullImageRequest) (*rt.PullImageResponse, error) {
	return watch(ctx, o, "pull_image", o.Engine.PullImage, r)
}

// RemoveImage implements Engine.
func (o *observed) RemoveImage(ctx context.Context, r *rt.RemoveImageRequest) (*rt.RemoveImageResponse, error) {
	return watch(ctx, o, "remove_image", o.Engine.RemoveImage, r)
}

// ImageFsInfo implements Engine.
func (o *observed) ImageFsInfo(ctx context.Context, r *rt.ImageFsInfoRequest) (*rt.ImageFsInfoResponse, error) {
	return watch(ctx, o, "image_fs_info", o.Engine.ImageFsInfo, r)
}
