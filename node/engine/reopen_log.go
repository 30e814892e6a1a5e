package engine

import (
	"context"
	"fmt"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
)

// ReopenContainerLog opens the log file anew after a rotation, or for who reads it
// before attaching (see [container.Runtime.ReopenLog]). Only for a
// running container: no log is made for one that writes no more.
func (e *Engine) ReopenContainerLog(ctx context.Context, r *rt.ReopenContainerLogRequest) (*rt.ReopenContainerLogResponse, error) {
	c, err := e.runningContainer(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	if err := e.runtime.ReopenLog(ctx, c.ID); err != nil {
		return nil, coded(fmt.Errorf("reopen the log of container %q: %w", c.ID, err))
	}
	return &rt.ReopenContainerLogResponse{}, nil
}

// runningContainer finds a container that runs.
func (e *Engine) runningContainer(id string) (*ctr, error) {
	c, err := e.container(id)
	if err != nil {
		return nil, err
	}
	st, err := e.runtime.Status(c.ID)
	if err != nil {
		return nil, coded(err)
	}
	if st.State != container.Running {
		return nil, precondition("container %q is %s, not running", c.ID, st.State)
	}
	return c, nil
}
