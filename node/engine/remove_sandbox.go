package engine

import (
	"context"

	"golang.org/x/sync/errgroup"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RemovePodSandbox stops a sandbox if need be, and removes it with its
// containers.
func (e *Engine) RemovePodSandbox(ctx context.Context, r *rt.RemovePodSandboxRequest) (*rt.RemovePodSandboxResponse, error) {
	if s := e.records.sandbox(r.GetPodSandboxId()); s != nil {
		if err := e.removeSandbox(ctx, s.ID, true); err != nil {
			return nil, coded(err)
		}
	}
	return &rt.RemovePodSandboxResponse{}, nil
}

// removeSandbox removes a sandbox, and if its pod has gone what it keeps from one
// container to the next.
func (e *Engine) removeSandbox(ctx context.Context, id string, podGone bool) error {
	defer e.busy.Lock(id)()
	s := e.records.sandbox(id)
	if s == nil {
		return nil
	}
	if err := e.stopSandbox(ctx, id); err != nil {
		return err
	}
	var g errgroup.Group
	for _, c := range e.records.everyContainerOf(id) {
		g.Go(func() error { return e.removeContainer(ctx, c.ID) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := e.unmakeSandbox(ctx, s); err != nil {
		return err
	}
	if podGone {
		if err := e.releaseKept(s); err != nil {
			return err
		}
	}
	last := e.snapshotOf(id, id, rt.ContainerEventType_CONTAINER_DELETED_EVENT)
	if err := e.records.dropSandbox(s); err != nil {
		return err
	}
	e.hub.publish(last)
	return nil
}
