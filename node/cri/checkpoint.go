package cri

import (
	"context"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Checkpointer is an Engine that can write a running container down. One that
// cannot, for want of a program of the machine's too, says Unimplemented, and what it
// lacks.
type Checkpointer interface {
	// CheckpointContainer writes an archive of the container to the location, an absolute
	// path, with mode 0600, whole or not at all. The container goes on running. On an
	// error it has lost nothing but time.
	CheckpointContainer(context.Context, *rt.CheckpointContainerRequest) (*rt.CheckpointContainerResponse, error)
}

// checkpoint has an engine do it, if it can.
func checkpoint(ctx context.Context, e Engine, r *rt.CheckpointContainerRequest) (*rt.CheckpointContainerResponse, error) {
	c, ok := e.(Checkpointer)
	if !ok {
		return nil, Unimplemented("checkpoint of container " + r.GetContainerId() + ": this engine does not use CRIU, which checkpoints need")
	}
	return c.CheckpointContainer(ctx, r)
}

// CheckpointContainer serves Checkpointer.
func (s *runtimeServer) CheckpointContainer(ctx context.Context, r *rt.CheckpointContainerRequest) (*rt.CheckpointContainerResponse, error) {
	return checkpoint(ctx, s.engine, r)
}

// CheckpointContainer asks the remote engine.
func (r *Remote) CheckpointContainer(ctx context.Context, in *rt.CheckpointContainerRequest) (*rt.CheckpointContainerResponse, error) {
	return r.runtime.CheckpointContainer(ctx, in)
}

// CheckpointContainer implements Checkpointer, as far as the observed engine does.
func (o *observed) CheckpointContainer(ctx context.Context, r *rt.CheckpointContainerRequest) (*rt.CheckpointContainerResponse, error) {
	call := func(ctx context.Context, r *rt.CheckpointContainerRequest) (*rt.CheckpointContainerResponse, error) {
		return checkpoint(ctx, o.Engine, r)
	}
	return watch(ctx, o, "checkpoint_container", call, r)
}

// CheckpointPod is refused: whole pods (KEP-5823, alpha) are not written down, only
// containers one by one.
func (s *runtimeServer) CheckpointPod(_ context.Context, r *rt.CheckpointPodRequest) (*rt.CheckpointPodResponse, error) {
	return nil, Unimplemented("checkpoint of pod " + r.GetPodSandboxId() + ": with CRIU this engine checkpoints single containers, no pods")
}

// RestorePod is refused like CheckpointPod.
func (s *runtimeServer) RestorePod(context.Context, *rt.RestorePodRequest) (*rt.RestorePodResponse, error) {
	return nil, Unimplemented("restore a pod: with CRIU this engine restores single containers, no pods")
}
