package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/reconcile"
)

// Declaration is the scheduler as an owner of what it writes: see
// reconcile.CheckOwnership.
type Declaration struct{}

// Name implements reconcile.Owner.
func (Declaration) Name() string { return "scheduler" }

// Reads are the kinds that decisions depend on.
func (Declaration) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Pods.GroupVersionResource, client.Nodes.GroupVersionResource,
		client.Namespaces.GroupVersionResource, client.PodDisruptionBudgets.GroupVersionResource,
		client.PersistentVolumeClaims.GroupVersionResource, client.PersistentVolumes.GroupVersionResource,
		client.StorageClasses.GroupVersionResource, client.CSINodes.GroupVersionResource, client.CSIDrivers.GroupVersionResource,
		client.CSIStorageCapacities.GroupVersionResource, client.VolumeAttachments.GroupVersionResource,
		client.ResourceClaims.GroupVersionResource, client.DeviceClasses.GroupVersionResource,
		client.ResourceSlices.GroupVersionResource, client.DeviceTaintRules.GroupVersionResource,
		client.Services.GroupVersionResource, client.ReplicationControllers.GroupVersionResource,
		client.ReplicaSets.GroupVersionResource, client.StatefulSets.GroupVersionResource,
	}
}

// Writes implements reconcile.Owner: the binding, the reasons for which there is
// none, the victims of a preemption, and what volumes and devices a pod gets.
func (Declaration) Writes() []reconcile.Write {
	pods, claims := client.Pods.GroupVersionResource, client.ResourceClaims.GroupVersionResource
	return []reconcile.Write{
		{Resource: pods, Part: "spec.nodeName"}, {Resource: pods, Part: "status.nominatedNodeName"},
		{Resource: pods, Part: "status.conditions[" + string(corev1.PodScheduled) + "]"},
		{Resource: pods, Part: "status.conditions[DisruptionTarget, preempted]"}, {Resource: pods, Part: reconcile.Delete},
		{Resource: pods, Part: "status.extendedResourceClaimStatus"},
		{Resource: client.PersistentVolumeClaims.GroupVersionResource, Part: "metadata.annotations[selected-node]"},
		{Resource: client.PersistentVolumes.GroupVersionResource, Part: "spec.claimRef[of the first consumer]"},
		{Resource: claims, Part: "create[of extended resources]"}, {Resource: claims, Part: "delete[of extended resources]"},
		{Resource: claims, Part: "metadata.finalizers[" + resourcev1.Finalizer + ", added]"},
		{Resource: claims, Part: "status.allocation"}, {Resource: claims, Part: "status.reservedFor[pods to be bound]"},
	}
}
