package engine

import (
	"context"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListContainers lists containers, newest first.
func (e *Engine) ListContainers(_ context.Context, r *rt.ListContainersRequest) (*rt.ListContainersResponse, error) {
	f := r.GetFilter()
	out := &rt.ListContainersResponse{}
	want := func(c *ctr) bool {
		return strings.HasPrefix(c.ID, f.GetId()) && strings.HasPrefix(c.SandboxID, f.GetPodSandboxId()) &&
			selected(f.GetLabelSelector(), c.Config.GetLabels())
	}
	for _, c := range e.records.containersThat(podOf(f.GetLabelSelector()), want) {
		state := e.stateOf(c).state
		if f.GetState() != nil && f.GetState().GetState() != state {
			continue
		}
		out.Containers = append(out.Containers, &rt.Container{
			Id: c.ID, PodSandboxId: c.SandboxID, Metadata: c.Config.GetMetadata(), Image: imageAsked(c), ImageRef: c.ImageRef,
			ImageId: c.ImageID, State: state, CreatedAt: c.CreatedAt, Labels: c.Config.GetLabels(), Annotations: c.Config.GetAnnotations(),
		})
	}
	return out, nil
}
