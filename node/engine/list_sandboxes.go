package engine

import (
	"context"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListPodSandbox lists sandboxes, newest first.
func (e *Engine) ListPodSandbox(_ context.Context, r *rt.ListPodSandboxRequest) (*rt.ListPodSandboxResponse, error) {
	f := r.GetFilter()
	out := &rt.ListPodSandboxResponse{}
	want := func(s *sandbox) bool {
		return strings.HasPrefix(s.ID, f.GetId()) && selected(f.GetLabelSelector(), s.Config.GetLabels()) &&
			(f.GetState() == nil || f.GetState().GetState() == s.state())
	}
	for _, s := range e.records.sandboxesThat(podOf(f.GetLabelSelector()), want) {
		out.Items = append(out.Items, &rt.PodSandbox{Id: s.ID, Metadata: s.Config.GetMetadata(), State: s.state(), CreatedAt: s.CreatedAt,
			Labels: s.Config.GetLabels(), Annotations: s.Config.GetAnnotations(), RuntimeHandler: s.Handler})
	}
	return out, nil
}

// selected tells whether labels hold everything that selector asks for.
func selected(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
