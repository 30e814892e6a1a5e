package scheduler

import corev1 "k8s.io/api/core/v1"

// Change is something that happened in the cluster since a pod was refused.
type Change struct {
	// Kind says what the change is; of a node it may be several.
	Kind ChangeKind
	// Node is the node of a node change as it is now, OldNode as it was; nil when
	// there is, or was, none.
	Node, OldNode *corev1.Node
	// Pod is the pod of a pod change, On the name of the node that it has come to
	// or left.
	Pod *corev1.Pod
	On  string
	// Was is the pod before, when its labels there changed.
	Was *corev1.Pod
	// Old and New are the object of a change of storage or devices, of the type
	// that the kind names; nil when there was, or is, none.
	Old, New any
}

// ChangeKind is a set of kinds of change.
type ChangeKind uint32

// The changes that can let a pod in.
const (
	NodeAdded ChangeKind = 1 << iota
	NodeRemoved
	NodeLabels
	NodeTaints
	NodeAllocatable
	// NodeFeatures: a node declares other features.
	NodeFeatures
	PodPlaced  // a pod is on a node now, or its labels there changed
	PodRemoved // a pod has left its node, or needs less there
	PodEnding  // a pod on a node is being deleted: some do not count it any more
	// PodClaims: the waiting pod itself names other device claims.
	PodClaims
	// NamespaceLabels: a namespace has other labels.
	NamespaceLabels

	// Of storage: *corev1.PersistentVolumeClaim, *corev1.PersistentVolume,
	// *storagev1.StorageClass, *storagev1.CSINode, *storagev1.CSIDriver and
	// *storagev1.CSIStorageCapacity. Without objects, something has been given back.
	ClaimChanged
	VolumeChanged
	ClassChanged
	CSINodeChanged
	CSIDriverChanged
	CapacityChanged
	// AttachmentChanged: *storagev1.VolumeAttachment.
	AttachmentChanged

	// Of devices: *resourcev1.ResourceClaim, *resourcev1.DeviceClass and
	// *resourcev1.ResourceSlice, as taint rules leave it; a rule's own change is
	// one of slices, without objects.
	DeviceClaimChanged
	DeviceClassChanged
	DeviceSliceChanged
	// GroupChanged: a group of pods is new or other, or has another member.
	GroupChanged
)

// StorageChanged are all changes of storage.
const StorageChanged = ClaimChanged | VolumeChanged | ClassChanged | CSINodeChanged | CSIDriverChanged | CapacityChanged | AttachmentChanged

// DevicesChanged are all changes of devices.
const DevicesChanged = DeviceClaimChanged | DeviceClassChanged | DeviceSliceChanged

// Became says whether a node passes a filter that it did not pass before.
func (c Change) Became(fit Fit) bool {
	if c.Node == nil {
		return false
	}
	if fit == nil {
		return true
	}
	return !fit(NewNode(c.Node)).Refuses() && (c.OldNode == nil || fit(NewNode(c.OldNode)).Refuses())
}
