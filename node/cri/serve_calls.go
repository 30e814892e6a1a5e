package cri

import (
	"context"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// These are one line a call: the wire's side of an Engine, which passes each
// request on.

func (s *runtimeServer) Version(ctx context.Context, r *rt.VersionRequest) (*rt.VersionResponse, error) {
	return s.engine.Version(ctx, r)
}

func (s *runtimeServer) Status(ctx context.Context, r *rt.StatusRequest) (*rt.StatusResponse, error) {
	return s.engine.Status(ctx, r)
}

func (s *runtimeServer) UpdateRuntimeConfig(ctx context.Context, r *rt.UpdateRuntimeConfigRequest) (*rt.UpdateRuntimeConfigResponse, error) {
	return s.engine.UpdateRuntimeConfig(ctx, r)
}

func (s *runtimeServer) RuntimeConfig(ctx context.Context, r *rt.RuntimeConfigRequest) (*rt.RuntimeConfigResponse, error) {
	return s.engine.RuntimeConfig(ctx, r)
}

func (s *runtimeServer) RunPodSandbox(ctx context.Context, r *rt.RunPodSandboxRequest) (*rt.RunPodSandboxResponse, error) {
	return s.engine.RunPodSandbox(ctx, r)
}

func (s *runtimeServer) StopPodSandbox(ctx context.Context, r *rt.StopPodSandboxRequest) (*rt.StopPodSandboxResponse, error) {
	return s.engine.StopPodSandbox(ctx, r)
}

func (s *runtimeServer) RemovePodSandbox(ctx context.Context, r *rt.RemovePodSandboxRequest) (*rt.RemovePodSandboxResponse, error) {
	return s.engine.RemovePodSandbox(ctx, r)
}

func (s *runtimeServer) PodSandboxStatus(ctx context.Context, r *rt.PodSandboxStatusRequest) (*rt.PodSandboxStatusResponse, error) {
	return s.engine.PodSandboxStatus(ctx, r)
}

func (s *runtimeServer) ListPodSandbox(ctx context.Context, r *rt.ListPodSandboxRequest) (*rt.ListPodSandboxResponse, error) {
	return s.engine.ListPodSandbox(ctx, r)
}

func (s *runtimeServer) UpdatePodSandboxResources(ctx context.Context, r *rt.UpdatePodSandboxResourcesRequest) (*rt.UpdatePodSandboxResourcesResponse, error) {
	return s.engine.UpdatePodSandboxResources(ctx, r)
}

func (s *runtimeServer) CreateContainer(ctx context.Context, r *rt.CreateContainerRequest) (*rt.CreateContainerResponse, error) {
	return s.engine.CreateContainer(ctx, r)
}

func (s *runtimeServer) StartContainer(ctx context.Context, r *rt.StartContainerRequest) (*rt.StartContainerResponse, error) {
	return s.engine.StartContainer(ctx, r)
}

func (s *runtimeServer) StopContainer(ctx context.Context, r *rt.StopContainerRequest) (*rt.StopContainerResponse, error) {
	return s.engine.StopContainer(ctx, r)
}

func (s *runtimeServer) RemoveContainer(ctx context.Context, r *rt.RemoveContainerRequest) (*rt.RemoveContainerResponse, error) {
	return s.engine.RemoveContainer(ctx, r)
}

func (s *runtimeServer) ListContainers(ctx context.Context, r *rt.ListContainersRequest) (*rt.ListContainersResponse, error) {
	return s.engine.ListContainers(ctx, r)
}

func (s *runtimeServer) ContainerStatus(ctx context.Context, r *rt.ContainerStatusRequest) (*rt.ContainerStatusResponse, error) {
	return s.engine.ContainerStatus(ctx, r)
}

func (s *runtimeServer) UpdateContainerResources(ctx context.Context, r *rt.UpdateContainerResourcesRequest) (*rt.UpdateContainerResourcesResponse, error) {
	return s.engine.UpdateContainerResources(ctx, r)
}

func (s *runtimeServer) ReopenContainerLog(ctx context.Context, r *rt.ReopenContainerLogRequest) (*rt.ReopenContainerLogResponse, error) {
	return s.engine.ReopenContainerLog(ctx, r)
}

func (s *runtimeServer) ExecSync(ctx context.Context, r *rt.ExecSyncRequest) (*rt.ExecSyncResponse, error) {
	return s.engine.ExecSync(ctx, r)
}

func (s *runtimeServer) Exec(ctx context.Context, r *rt.ExecRequest) (*rt.ExecResponse, error) {
	return s.engine.Exec(ctx, r)
}

func (s *runtimeServer) Attach(ctx context.Context, r *rt.AttachRequest) (*rt.AttachResponse, error) {
	return s.engine.Attach(ctx, r)
}

func (s *runtimeServer) PortForward(ctx context.Context, r *rt.PortForwardRequest) (*rt.PortForwardResponse, error) {
	return s.engine.PortForward(ctx, r)
}

func (s *runtimeServer) ContainerStats(ctx context.Context, r *rt.ContainerStatsRequest) (*rt.ContainerStatsResponse, error) {
	return s.engine.ContainerStats(ctx, r)
}

func (s *runtimeServer) ListContainerStats(ctx context.Context, r *rt.ListContainerStatsRequest) (*rt.ListContainerStatsResponse, error) {
	return s.engine.ListContainerStats(ctx, r)
}

func (s *runtimeServer) PodSandboxStats(ctx context.Context, r *rt.PodSandboxStatsRequest) (*rt.PodSandboxStatsResponse, error) {
	return s.engine.PodSandboxStats(ctx, r)
}

func (s *runtimeServer) ListPodSandboxStats(ctx context.Context, r *rt.ListPodSandboxStatsRequest) (*rt.ListPodSandboxStatsResponse, error) {
	return s.engine.ListPodSandboxStats(ctx, r)
}

func (s *imageServer) ListImages(ctx context.Context, r *rt.ListImagesRequest) (*rt.ListImagesResponse, error) {
	return s.engine.ListImages(ctx, r)
}

func (s *imageServer) ImageStatus(ctx context.Context, r *rt.ImageStatusRequest) (*rt.ImageStatusResponse, error) {
	return s.engine.ImageStatus(ctx, r)
}

func (s *imageServer) PullImage(ctx context.Context, r *rt.PullImageRequest) (*rt.PullImageResponse, error) {
	return s.engine.PullImage(ctx, r)
}

func (s *imageServer) RemoveImage(ctx context.Context, r *rt.RemoveImageRequest) (*rt.RemoveImageResponse, error) {
	return s.engine.RemoveImage(ctx, r)
}

func (s *imageServer) ImageFsInfo(ctx context.Context, r *rt.ImageFsInfoRequest) (*rt.ImageFsInfoResponse, error) {
	return s.engine.ImageFsInfo(ctx, r)
}
