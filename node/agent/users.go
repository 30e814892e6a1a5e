package agent

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/agent/users"
)

// newUsers reads which ranges of users pods have.
func (a *Agent) newUsers() error {
	cfg := users.Config{Root: a.cfg.Root, Pods: a.cfg.MaxPods, Log: a.cfg.Log}
	if u := a.cfg.Kubelet.UserNamespaces; u != nil && u.IDsPerPod != nil {
		cfg.Length = uint32(*u.IDsPerPod) // checked with the configuration
	}
	var err error
	if a.users, err = users.Open(cfg); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// userNamespace is the pod's, which a pod of the host's users says as well. One
// of its own it gets only where the engine's handler knows what that is.
func (a *Agent) userNamespace(ctx context.Context, pod *corev1.Pod, handler string) (*rt.UserNamespace, error) {
	if !spec.OwnUsers(pod) {
		return &rt.UserNamespace{Mode: rt.NamespaceMode_NODE}, nil
	}
	features, err := a.features(ctx, handler)
	if err != nil {
		return nil, err
	}
	if features.GetUserNamespaces() {
		return a.users.Of(string(pod.UID))
	}
	if handler != "" {
		return nil, fmt.Errorf("can't set `spec.hostUsers: false`, RuntimeClass handler %q does not support user namespaces", handler)
	}
	return nil, fmt.Errorf("can't set `spec.hostUsers: false`, runtime does not support user namespaces")
}

// inUsers puts one of a pod's containers into its sandbox's user namespace. Its
// mounts show their files by the namespace's mapping, so that what the pod writes
// has the owners on the disk that it has for the pod.
func (a *Agent) inUsers(pod *corev1.Pod, cfg *rt.ContainerConfig, box *rt.PodSandboxConfig) error {
	u := &rt.UserNamespace{Mode: rt.NamespaceMode_NODE}
	if spec.OwnUsers(pod) {
		var err error
		if u, err = a.users.Of(string(pod.UID)); err != nil {
			return err
		}
	}
	cfg.Linux.SecurityContext.NamespaceOptions.UsernsOptions = u
	box.Linux.SecurityContext.NamespaceOptions.UsernsOptions = u
	for _, m := range cfg.Mounts {
		m.UidMappings, m.GidMappings = u.Uids, u.Gids
	}
	return nil
}
