package engine

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/engine/spec"
)

// UpdateContainerResources changes the limits of a container. What the request
// leaves at zero stays as it is.
func (e *Engine) UpdateContainerResources(ctx context.Context, r *rt.UpdateContainerResourcesRequest) (*rt.UpdateContainerResourcesResponse, error) {
	if r.GetLinux() == nil {
		return nil, invalid("container %q: an update without Linux resources", r.GetContainerId())
	}
	found, err := e.container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	defer e.busy.Lock(found.ID)()
	c, err := e.container(found.ID)
	if err != nil {
		return nil, err
	}
	if err := e.runtime.Update(ctx, c.ID, spec.Resources(r.GetLinux())); err != nil {
		return nil, coded(fmt.Errorf("update container %q: %w", c.ID, err))
	}
	changed := *c
	changed.Config = proto.CloneOf(c.Config)
	if changed.Config.Linux == nil {
		changed.Config.Linux = &rt.LinuxContainerConfig{}
	}
	changed.Config.Linux.Resources = mergeResources(c.Config.GetLinux().GetResources(), r.GetLinux())
	if err := e.records.putContainer(&changed); err != nil {
		return nil, coded(err)
	}
	return &rt.UpdateContainerResourcesResponse{}, nil
}

// mergeResources lays what change sets over old.
func mergeResources(old, change *rt.LinuxContainerResources) *rt.LinuxContainerResources {
	out := &rt.LinuxContainerResources{}
	if old != nil {
		out = proto.CloneOf(old)
	}
	if len(change.GetHugepageLimits()) > 0 {
		out.HugepageLimits = nil // Merge appends lists
	}
	proto.Merge(out, change)
	return out
}
