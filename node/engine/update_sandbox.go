package engine

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/engine/spec"
)

// UpdatePodSandboxResources changes the limits of a pod's cgroup, which hold for
// its containers together. What the request leaves at zero stays as it is. The
// overhead is part of the resources, and only kept.
func (e *Engine) UpdatePodSandboxResources(ctx context.Context, r *rt.UpdatePodSandboxResourcesRequest) (*rt.UpdatePodSandboxResourcesResponse, error) {
	found := e.records.sandbox(r.GetPodSandboxId())
	if found == nil {
		return nil, notFound("sandbox %q is not found", r.GetPodSandboxId())
	}
	defer e.busy.Lock(found.ID)()
	s := e.records.sandbox(found.ID)
	if s == nil || !s.Ready {
		return nil, precondition("sandbox %q is not ready", found.ID)
	}
	if limits := r.GetResources(); limits != nil {
		if err := e.runtime.UpdateSandbox(ctx, s.ID, spec.Resources(limits)); err != nil {
			return nil, coded(fmt.Errorf("update pod %q: %w", podName(s.Config), err))
		}
	}
	changed := *s
	changed.Config = proto.CloneOf(s.Config)
	if changed.Config.Linux == nil {
		changed.Config.Linux = &rt.LinuxPodSandboxConfig{}
	}
	l := changed.Config.Linux
	l.Resources = mergeResources(l.Resources, r.GetResources())
	l.Overhead = mergeResources(l.Overhead, r.GetOverhead())
	if err := e.records.putSandbox(&changed); err != nil {
		return nil, coded(err)
	}
	return &rt.UpdatePodSandboxResourcesResponse{}, nil
}
