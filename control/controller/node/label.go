package node

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// older are labels by the names that they had before, which say what those of today do:
// selectors from then go on to find their nodes.
var older = map[string]string{
	corev1.LabelOSStable:   "beta.kubernetes.io/os",
	corev1.LabelArchStable: "beta.kubernetes.io/arch",
}

// missingLabels are the older labels that a node has not, or that say something else.
func missingLabels(node *corev1.Node) map[string]string {
	missing := map[string]string{}
	for now, before := range older {
		if value, ok := node.Labels[now]; ok && node.Labels[before] != value {
			missing[before] = value
		}
	}
	return missing
}

// label writes what is missing, and says whether anything was.
func (c *Controller) label(ctx context.Context, node *corev1.Node) (bool, error) {
	missing := missingLabels(node)
	if len(missing) == 0 {
		return false, nil
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": node.UID, "labels": missing}})
	if err != nil {
		return false, fmt.Errorf("encode labels: %w", err)
	}
	at := target.Of(client.Nodes.GroupVersionResource, "").Object(node.Name)
	if _, err := client.Nodes.Patch(ctx, c.transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: data}); err != nil {
		return false, fmt.Errorf("label node %q: %w", node.Name, err)
	}
	return true, nil
}
