package engine

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
)

// killTime is how long a killed container may take to be gone: longer means that
// a process hangs in the kernel, and the caller must come again.
const killTime = 2 * time.Minute

// StopContainer asks a container to end, and makes it when the grace period is
// over. When ctx ends first, so does the call: the next one goes on.
func (e *Engine) StopContainer(ctx context.Context, r *rt.StopContainerRequest) (*rt.StopContainerResponse, error) {
	c := e.records.container(r.GetContainerId())
	if c == nil {
		return &rt.StopContainerResponse{}, nil
	}
	if grace := time.Duration(r.GetTimeout()) * time.Second; grace > 0 {
		ended, err := e.terminate(ctx, c, grace)
		if err != nil {
			return nil, coded(fmt.Errorf("stop container %q: %w", c.ID, err))
		}
		if ended {
			return &rt.StopContainerResponse{}, nil
		}
	}
	if err := e.kill(ctx, c.ID); err != nil {
		return nil, coded(err)
	}
	return &rt.StopContainerResponse{}, nil
}

// terminate sends the stop signal and waits; false means that the grace period
// is over.
func (e *Engine) terminate(ctx context.Context, c *ctr, grace time.Duration) (ended bool, err error) {
	running, err := e.isRunning(c.ID)
	if err != nil || !running {
		return !running, err
	}
	err = e.runtime.Signal(ctx, c.ID, syscall.Signal(c.StopSignal), false)
	if errors.Is(err, container.ErrNotFound) || errors.Is(err, container.ErrState) {
		return true, nil // it ended by itself
	}
	if err != nil {
		return false, err
	}
	wait, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	_, err = e.runtime.Wait(wait, c.ID)
	switch {
	case err == nil, errors.Is(err, container.ErrNotFound):
		return true, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case wait.Err() != nil:
		return false, nil
	}
	return false, err
}

// kill ends a container that runs, with everything in it, and waits until it is
// gone.
func (e *Engine) kill(ctx context.Context, id string) error {
	defer e.busy.Lock(id)() // not while it is being made, or started
	running, err := e.isRunning(id)
	if err != nil || !running {
		return err
	}
	err = e.runtime.Signal(ctx, id, syscall.SIGKILL, true)
	if err != nil && !errors.Is(err, container.ErrNotFound) && !errors.Is(err, container.ErrState) {
		return fmt.Errorf("kill container %q: %w", id, err)
	}
	wait, cancel := context.WithTimeoutCause(ctx, killTime, fmt.Errorf("it still runs %s after it was killed", killTime))
	defer cancel()
	_, err = e.runtime.Wait(wait, id)
	if err != nil && !errors.Is(err, container.ErrNotFound) {
		return fmt.Errorf("kill container %q: %w", id, err)
	}
	return nil
}

func (e *Engine) isRunning(id string) (bool, error) {
	st, err := e.runtime.Status(id)
	if errors.Is(err, container.ErrNotFound) {
		return false, nil
	}
	return st.State == container.Running, err
}
