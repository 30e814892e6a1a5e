package agent

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"

	"github.com/sampan-dev/sampan/client"
)

// claims reads the claims of the node's pods, one by one: a node may not watch
// them. It implements volume.Claims.
type claims struct{ a *Agent }

func (c claims) Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	return client.PersistentVolumeClaims.Get(ctx, c.a.cfg.Transport, namespace, name)
}

func (c claims) PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	return client.PersistentVolumes.Get(ctx, c.a.cfg.Transport, "", name)
}

// Reachable heeds the node's labels, for pods that no scheduler has placed.
func (c claims) Reachable(pv *corev1.PersistentVolume) error {
	node, ok := c.a.nodes.Get("", c.a.cfg.NodeName)
	if !ok {
		return errors.New("the node is not known yet")
	}
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil
	}
	fits, err := corev1helpers.MatchNodeSelectorTerms(node, pv.Spec.NodeAffinity.Required)
	if err == nil && !fits {
		err = errors.New("no matching NodeSelectorTerms")
	}
	return err
}
