package agent

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/reconcile"
)

// Declaration is a node's agent as an owner of what it writes: see
// reconcile.CheckOwnership. It reads and writes what belongs to its own node.
type Declaration struct{}

// Name implements reconcile.Owner.
func (Declaration) Name() string { return "agent" }

// Reads are the kinds that decisions depend on.
func (Declaration) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Pods.GroupVersionResource, client.Nodes.GroupVersionResource, client.Services.GroupVersionResource,
		client.ConfigMaps.GroupVersionResource, client.Secrets.GroupVersionResource, client.ServiceAccounts.GroupVersionResource,
		client.RuntimeClasses.GroupVersionResource, client.ClusterTrustBundles.GroupVersionResource,
		client.PodCertificateRequests.GroupVersionResource, client.ResourceClaims.GroupVersionResource,
		client.ResourceSlices.GroupVersionResource, client.Leases.GroupVersionResource,
		client.PersistentVolumeClaims.GroupVersionResource, client.PersistentVolumes.GroupVersionResource,
	}
}

// Writes implements reconcile.Owner.
func (Declaration) Writes() []reconcile.Write {
	pods, nodes, leases := client.Pods.GroupVersionResource, client.Nodes.GroupVersionResource, client.Leases.GroupVersionResource
	return []reconcile.Write{
		{Resource: pods, Part: reconcile.Create}, {Resource: client.ResourceSlices.GroupVersionResource, Part: reconcile.Delete},
		{Resource: pods, Part: "status.phase"}, {Resource: pods, Part: "status.conditions[of the node]"},
		{Resource: pods, Part: "status.containerStatuses"}, {Resource: pods, Part: reconcile.Delete},
		{Resource: nodes, Part: reconcile.Create}, {Resource: nodes, Part: "metadata.labels[of the node]"},
		{Resource: nodes, Part: "metadata.annotations[of the node]"},
		{Resource: nodes, Part: "status.conditions[of the node]"}, {Resource: nodes, Part: "status.capacity"},
		{Resource: leases, Part: reconcile.Create}, {Resource: leases, Part: "spec[kube-node-lease]"},
		{Resource: client.PodCertificateRequests.GroupVersionResource, Part: reconcile.Create},
	}
}
