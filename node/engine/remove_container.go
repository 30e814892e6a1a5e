package engine

import (
	"context"
	"errors"
	"fmt"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
)

// RemoveContainer removes a container, by force if it runs. Its log files stay:
// they are the caller's.
func (e *Engine) RemoveContainer(ctx context.Context, r *rt.RemoveContainerRequest) (*rt.RemoveContainerResponse, error) {
	if c := e.records.container(r.GetContainerId()); c != nil {
		if err := e.removeContainer(ctx, c.ID); err != nil {
			return nil, coded(err)
		}
	}
	return &rt.RemoveContainerResponse{}, nil
}

func (e *Engine) removeContainer(ctx context.Context, id string) error {
	if err := e.kill(ctx, id); err != nil {
		return err
	}
	defer e.busy.Lock(id)()
	c := e.records.container(id)
	if c == nil {
		return nil
	}
	last := e.snapshotOf(c.SandboxID, c.ID, rt.ContainerEventType_CONTAINER_DELETED_EVENT)
	if err := e.unmakeContainer(ctx, c); err != nil {
		return fmt.Errorf("remove container %q: %w", id, err)
	}
	e.hub.publish(last)
	return nil
}

// unmakeContainer gives back everything, the record last.
func (e *Engine) unmakeContainer(ctx context.Context, c *ctr) error {
	if err := e.runtime.Remove(ctx, c.ID); err != nil && !errors.Is(err, container.ErrNotFound) {
		return err
	}
	var errs []error
	if c.Kept == "" { // else it goes with the pod
		errs = append(errs, e.images.Release(c.ID))
	}
	for i := range c.Volumes {
		errs = append(errs, e.images.Release(volumeSnapshot(c.ID, i)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return e.records.dropContainer(c)
}
