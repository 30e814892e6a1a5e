package agent

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/spec"
)

// features are what the engine's handler can do, nil for a handler that it doesn't
// name.
func (a *Agent) features(ctx context.Context, handler string) (*rt.RuntimeHandlerFeatures, error) {
	status, err := a.cfg.Engine.Status(ctx, &rt.StatusRequest{})
	if err != nil {
		return nil, err
	}
	for _, h := range status.GetRuntimeHandlers() {
		if h.GetName() == handler {
			return h.GetFeatures(), nil
		}
	}
	return nil, nil
}

// throughout reports whether the pod's handler can keep what is mounted below a
// read-only mount from being written to as well; nil when none of these containers
// asks. A class that is not there is one whose handler can't.
func (a *Agent) throughout(ctx context.Context, pod *corev1.Pod, containers ...*corev1.Container) (*bool, error) {
	asked := false
	for _, c := range containers {
		for i := range c.VolumeMounts {
			asked = asked || spec.AsksThroughout(&c.VolumeMounts[i])
		}
	}
	if !asked {
		return nil, nil
	}
	able := false
	handler, err := a.handler(ctx, pod)
	if err != nil {
		a.cfg.Log.Warn("can't tell whether mounts can be read-only throughout; they are not", "pod", pod.Name, "namespace", pod.Namespace, "err", err)
		return &able, nil
	}
	features, err := a.features(ctx, handler)
	if err != nil {
		return nil, fmt.Errorf("ask the engine what its handlers can do: %w", err)
	}
	able = features.GetRecursiveReadOnlyMounts()
	return &able, nil
}
