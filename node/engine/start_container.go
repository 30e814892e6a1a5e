package engine

import (
	"context"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StartContainer starts a container that was created and never started. One
// whose program cannot be run is then a container that has exited.
func (e *Engine) StartContainer(ctx context.Context, r *rt.StartContainerRequest) (*rt.StartContainerResponse, error) {
	c, err := e.container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	defer e.busy.Lock(c.ID)()
	if err := e.runtime.Start(ctx, c.ID); err != nil {
		return nil, coded(c.said("start container", "", e.doubt(ctx, c, err)))
	}
	e.announce(c.SandboxID, c.ID, rt.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &rt.StartContainerResponse{}, nil
}

// container finds a container, or says so in the CRI's words.
func (e *Engine) container(id string) (*ctr, error) {
	c := e.records.container(id)
	if c == nil {
		return nil, notFound("container %q is not found", id)
	}
	return c, nil
}
