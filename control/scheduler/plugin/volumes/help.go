package volumes

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Heeds implements scheduler.Filter.
func (*Binding) Heeds() scheduler.ChangeKind {
	return scheduler.NodeAdded | scheduler.NodeLabels | scheduler.ClaimChanged | scheduler.VolumeChanged | scheduler.ClassChanged |
		scheduler.CSIDriverChanged | scheduler.CapacityChanged
}

// Helps implements scheduler.Filter.
func (*Binding) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	switch now := c.New.(type) {
	case *corev1.PersistentVolumeClaim:
		return names(pod, now)
	case *storagev1.StorageClass:
		old, had := c.Old.(*storagev1.StorageClass)
		return !had || !apiequality.Semantic.DeepEqual(old.AllowedTopologies, now.AllowedTopologies)
	case *storagev1.CSIDriver:
		old, had := c.Old.(*storagev1.CSIDriver)
		return had && tells(old) && !tells(now) && slices.ContainsFunc(claims(pod, v.Storage()), func(claim *corev1.PersistentVolumeClaim) bool {
			class := v.Storage().Class(className(claim))
			return class != nil && class.Provisioner == now.Name
		})
	case *storagev1.CSIStorageCapacity:
		old, had := c.Old.(*storagev1.CSIStorageCapacity)
		return !had || grown(limit(old), limit(now))
	}
	return c.New != nil || c.Old == nil // what is gone helps nobody
}

// names says whether a pod uses a claim.
func names(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	return pod.Namespace == claim.Namespace && slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return claimName(pod, &v) == claim.Name
	})
}

// tells says whether a driver publishes how much space it has.
func tells(d *storagev1.CSIDriver) bool {
	return d.Spec.StorageCapacity != nil && *d.Spec.StorageCapacity
}

// limit is the largest volume that there is space for.
func limit(c *storagev1.CSIStorageCapacity) *resource.Quantity {
	if c.MaximumVolumeSize != nil {
		return c.MaximumVolumeSize
	}
	return c.Capacity
}

func grown(old, now *resource.Quantity) bool {
	return now != nil && (old == nil || now.Cmp(*old) > 0)
}

// Heeds implements scheduler.Filter.
func (Zone) Heeds() scheduler.ChangeKind {
	return scheduler.NodeAdded | scheduler.NodeLabels | scheduler.ClaimChanged | scheduler.VolumeChanged | scheduler.ClassChanged
}

// Helps implements scheduler.Filter.
func (Zone) Helps(pod *corev1.Pod, c scheduler.Change, _ scheduler.View) bool {
	switch now := c.New.(type) {
	case *corev1.PersistentVolumeClaim:
		return names(pod, now)
	case *corev1.PersistentVolume:
		old, had := c.Old.(*corev1.PersistentVolume)
		return !had || !apiequality.Semantic.DeepEqual(old.Labels, now.Labels)
	case *storagev1.StorageClass:
		return c.Old == nil
	}
	return c.Node != nil
}

// Heeds implements scheduler.Filter.
func (Limits) Heeds() scheduler.ChangeKind {
	return scheduler.PodRemoved | scheduler.NodeAdded | scheduler.ClaimChanged | scheduler.CSINodeChanged | scheduler.AttachmentChanged | scheduler.CSIDriverChanged
}

// Helps implements scheduler.Filter.
func (Limits) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	switch now := c.New.(type) {
	case *corev1.PersistentVolumeClaim:
		return c.Old == nil && names(pod, now)
	case *storagev1.CSINode:
		old, had := c.Old.(*storagev1.CSINode)
		return !had || raised(old, now)
	case *storagev1.CSIDriver:
		old, had := c.Old.(*storagev1.CSIDriver)
		return had && demands(old) && !demands(now)
	case *storagev1.VolumeAttachment:
		return false
	}
	if _, detached := c.Old.(*storagev1.VolumeAttachment); detached {
		return true
	}
	return c.Node != nil || c.Pod != nil && len(attached(c.Pod, v.Storage(), nil)) > 0
}

// raised says whether a driver can attach more volumes to a node, or is new there.
func raised(old, now *storagev1.CSINode) bool {
	before := limitsIn(old)
	for _, d := range now.Spec.Drivers {
		if !installed(old, d.Name) {
			return true
		}
		have, limited := before[d.Name]
		if limited && (d.Allocatable == nil || d.Allocatable.Count == nil || *d.Allocatable.Count > have) {
			return true
		}
	}
	return false
}

// Heeds implements scheduler.Filter.
func (Restrictions) Heeds() scheduler.ChangeKind {
	return scheduler.PodRemoved | scheduler.NodeAdded | scheduler.ClaimChanged
}

// Helps implements scheduler.Filter: a pod must have left with a claim, or a disk,
// of this one's.
func (Restrictions) Helps(pod *corev1.Pod, c scheduler.Change, _ scheduler.View) bool {
	if claim, ok := c.New.(*corev1.PersistentVolumeClaim); ok {
		return c.Old == nil && names(pod, claim)
	}
	if c.Pod == nil {
		return c.Node != nil
	}
	for i := range c.Pod.Spec.Volumes {
		for j := range pod.Spec.Volumes {
			a, b := &c.Pod.Spec.Volumes[i], &pod.Spec.Volumes[j]
			name := claimName(c.Pod, a)
			if same(a, b) || name != "" && c.Pod.Namespace == pod.Namespace && name == claimName(pod, b) {
				return true
			}
		}
	}
	return false
}
