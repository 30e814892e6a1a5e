package engine

import (
	"context"

	"golang.org/x/sync/errgroup"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StopPodSandbox kills what runs in a sandbox and gives its addresses back. The
// sandbox is not ready from the first moment on, so that no container is made
// in it meanwhile.
func (e *Engine) StopPodSandbox(ctx context.Context, r *rt.StopPodSandboxRequest) (*rt.StopPodSandboxResponse, error) {
	if s := e.records.sandbox(r.GetPodSandboxId()); s != nil {
		defer e.busy.Lock(s.ID)()
		if err := e.stopSandbox(ctx, s.ID); err != nil {
			return nil, coded(err)
		}
	}
	return &rt.StopPodSandboxResponse{}, nil
}

// stopSandbox works with the sandbox's lock held.
func (e *Engine) stopSandbox(ctx context.Context, id string) error {
	s := e.records.sandbox(id)
	if s == nil {
		return nil
	}
	was := s.Ready
	if was {
		stopped := *s
		stopped.Ready = false
		if err := e.records.putSandbox(&stopped); err != nil {
			return err
		}
	}
	var g errgroup.Group
	for _, c := range e.records.everyContainerOf(id) {
		g.Go(func() error { return e.kill(ctx, c.ID) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := e.network.Detach(ctx, attachment(s, s.NetNS)); err != nil {
		return err
	}
	if was {
		e.announce(id, id, rt.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
	return nil
}
