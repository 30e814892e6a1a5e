package agenttest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// ListImages implements cri.Engine.
func (e *Engine) ListImages(context.Context, *rt.ListImagesRequest) (*rt.ListImagesResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := &rt.ListImagesResponse{}
	for name := range e.Images {
		out.Images = append(out.Images, &rt.Image{Id: name, RepoTags: []string{name}, Size: 1, Pinned: e.Pinned[name]})
	}
	return out, nil
}

// ImageStatus implements cri.Engine.
func (e *Engine) ImageStatus(_ context.Context, r *rt.ImageStatusRequest) (*rt.ImageStatusResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	name := r.GetImage().GetImage()
	if name != strings.ToLower(name) {
		return nil, status.Errorf(codes.InvalidArgument, "%q is no name of an image", name)
	}
	if e.Images[name] == nil {
		return &rt.ImageStatusResponse{}, nil
	}
	return &rt.ImageStatusResponse{Image: &rt.Image{Id: name, Size: 1}}, nil
}

// PullImage implements cri.Engine.
func (e *Engine) PullImage(ctx context.Context, r *rt.PullImageRequest) (*rt.PullImageResponse, error) {
	e.mu.Lock()
	wait := e.PullTime
	e.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	name := r.GetImage().GetImage()
	program := e.Registry[name]
	if program == nil {
		return nil, fmt.Errorf("registry has no %q", name)
	}
	if want := e.Private[name]; want != "" && r.GetAuth().GetPassword() != want {
		return nil, fmt.Errorf("registry does not show %q to %q", name, r.GetAuth().GetUsername())
	}
	e.Images[name] = program
	return &rt.PullImageResponse{ImageRef: "sha256:" + name}, nil
}

// RemoveImage implements cri.Engine.
func (e *Engine) RemoveImage(_ context.Context, r *rt.RemoveImageRequest) (*rt.RemoveImageResponse, error) {
	e.Do(func() { delete(e.Images, r.GetImage().GetImage()) })
	return &rt.RemoveImageResponse{}, nil
}

// ImageFsInfo implements cri.Engine.
func (e *Engine) ImageFsInfo(context.Context, *rt.ImageFsInfoRequest) (*rt.ImageFsInfoResponse, error) {
	return &rt.ImageFsInfoResponse{}, nil
}

// ListPodSandboxStats implements cri.Engine.
func (e *Engine) ListPodSandboxStats(context.Context, *rt.ListPodSandboxStatsRequest) (*rt.ListPodSandboxStatsResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := &rt.ListPodSandboxStatsResponse{}
	for _, b := range e.sandboxes {
		out.Stats = append(out.Stats, &rt.PodSandboxStats{Attributes: &rt.PodSandboxAttributes{Id: b.id, Metadata: b.config.GetMetadata()},
			Linux: &rt.LinuxPodSandboxStats{Memory: &rt.MemoryUsage{WorkingSetBytes: &rt.UInt64Value{Value: e.Memory[b.config.GetMetadata().GetName()]}}}})
	}
	return out, nil
}

// PodSandboxStats implements cri.Engine: what the pod, and each of its running
// containers ("pod/container"), uses by Memory.
func (e *Engine) PodSandboxStats(_ context.Context, r *rt.PodSandboxStatsRequest) (*rt.PodSandboxStatsResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.sandboxes[r.GetPodSandboxId()]
	if b == nil {
		return nil, cri.NotFound("sandbox %q", r.GetPodSandboxId())
	}
	pod := b.config.GetMetadata().GetName()
	linux := &rt.LinuxPodSandboxStats{Memory: &rt.MemoryUsage{UsageBytes: &rt.UInt64Value{Value: e.Memory[pod]}}}
	for _, c := range e.containers {
		if c.box == b.id && c.state == rt.ContainerState_CONTAINER_RUNNING {
			used := &rt.MemoryUsage{UsageBytes: &rt.UInt64Value{Value: e.Memory[pod+"/"+c.config.GetMetadata().GetName()]}}
			linux.Containers = append(linux.Containers, &rt.ContainerStats{Attributes: &rt.ContainerAttributes{Id: c.id, Metadata: c.config.GetMetadata()}, Memory: used})
		}
	}
	return &rt.PodSandboxStatsResponse{Stats: &rt.PodSandboxStats{Attributes: &rt.PodSandboxAttributes{Id: b.id, Metadata: b.config.GetMetadata()}, Linux: linux}}, nil
}

// ListContainerStats implements cri.Engine: every container has used a second of
// CPU and a mebibyte.
func (e *Engine) ListContainerStats(context.Context, *rt.ListContainerStatsRequest) (*rt.ListContainerStatsResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := &rt.ListContainerStatsResponse{}
	now := time.Now().UnixNano()
	for _, c := range e.containers {
		out.Stats = append(out.Stats, &rt.ContainerStats{
			Attributes: &rt.ContainerAttributes{Id: c.id, Metadata: c.config.GetMetadata(), Labels: clone(c.config.GetLabels())},
			Cpu:        &rt.CpuUsage{Timestamp: now, UsageCoreNanoSeconds: &rt.UInt64Value{Value: uint64(time.Second)}},
			Memory:     &rt.MemoryUsage{Timestamp: now, WorkingSetBytes: &rt.UInt64Value{Value: 1 << 20}},
		})
	}
	return out, nil
}

// The rest can't be had in memory.

// ContainerStats implements cri.Engine.
func (e *Engine) ContainerStats(context.Context, *rt.ContainerStatsRequest) (*rt.ContainerStatsResponse, error) {
	return nil, cri.Unimplemented("stats of one container")
}

// Attach implements cri.Engine.
func (e *Engine) Attach(context.Context, *rt.AttachRequest) (*rt.AttachResponse, error) {
	return nil, cri.Unimplemented("streams")
}

// PortForward implements cri.Engine.
func (e *Engine) PortForward(context.Context, *rt.PortForwardRequest) (*rt.PortForwardResponse, error) {
	return nil, cri.Unimplemented("streams")
}

// Exec implements cri.Engine: it hands StreamURL out.
func (e *Engine) Exec(context.Context, *rt.ExecRequest) (*rt.ExecResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.StreamURL == "" {
		return nil, cri.Unimplemented("streams")
	}
	return &rt.ExecResponse{Url: e.StreamURL}, nil
}
