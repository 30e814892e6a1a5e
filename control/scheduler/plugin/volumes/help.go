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
		return had && tells(old) && !tells(now) && provisions(now, pod, v.Storage())
	case *storagev1.CSIStorageCapacity:
		old, had := c.Old.(*storagev1.CSIStorageCapacity)
		return !had || grown(limit(old), limit(now))
	}
	if gone, ok := c.Old.(*storagev1.CSIDriver); ok { // nobody says any more that there is no space
		return tells(gone) && provisions(gone, pod, v.Storage())
	}
	return c.New != nil || c.Old == nil // what else is gone helps nobody
}

// provisions says whether a driver makes the volume of one of a pod's claims.
func provisions(d *storagev1.CSIDriver, pod *corev1.Pod, s scheduler.Storage) bool {
	return slices.ContainsFunc(claims(pod, s), func(claim *corev1.PersistentVolumeClaim) bool {
		class := s.Class(className(claim))
		return class != nil && class.Provisioner == d.Name
	})
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
	return scheduler.PodPlaced | scheduler.PodRemoved | scheduler.NodeAdded | scheduler.ClaimChanged | scheduler.VolumeChanged |
		scheduler.CSINodeChanged | scheduler.AttachmentChanged | scheduler.CSIDriverChanged
}

// Helps implements scheduler.Filter. A pod that leaves may have held a volume, though
// its claim may be gone as well by now; and a volume that comes to a node for another
// pod is there for this one too.
func (Limits) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	switch now := c.New.(type) {
	case *corev1.PersistentVolumeClaim:
		return names(pod, now) || uses(pod, now.Spec.VolumeName, v.Storage())
	case *corev1.PersistentVolume:
		return uses(pod, now.Name, v.Storage())
	case *storagev1.CSINode:
		old, had := c.Old.(*storagev1.CSINode)
		return !had || raised(old, now)
	case *storagev1.CSIDriver:
		old, had := c.Old.(*storagev1.CSIDriver)
		return had && demands(old) && !demands(now)
	case *storagev1.VolumeAttachment:
		name := now.Spec.Source.PersistentVolumeName
		return c.Old == nil && name != nil && uses(pod, *name, v.Storage())
	}
	switch gone := c.Old.(type) {
	case *storagev1.VolumeAttachment:
		return true
	case *storagev1.CSIDriver:
		return demands(gone)
	}
	if c.Kind == scheduler.PodPlaced {
		return shares(pod, c.Pod, v.Storage())
	}
	return c.Node != nil || c.Pod != nil && slices.ContainsFunc(c.Pod.Spec.Volumes, func(v corev1.Volume) bool {
		inline, _ := movedInline(&v)
		return inline != "" || claimName(c.Pod, &v) != ""
	})
}

// uses says whether one of a pod's claims is bound to the named volume, or to one
// that stands for the same: two may have one handle.
func uses(pod *corev1.Pod, volume string, s scheduler.Storage) bool {
	if volume == "" {
		return false
	}
	if slices.ContainsFunc(claims(pod, s), func(c *corev1.PersistentVolumeClaim) bool { return c.Spec.VolumeName == volume }) {
		return true
	}
	pv := s.Volume(volume)
	if pv == nil || pv.Spec.CSI == nil {
		return false
	}
	_, same := attached(pod, s, nil)[pv.Spec.CSI.Driver+"/"+pv.Spec.CSI.VolumeHandle]
	return same
}

// shares says whether two pods use one claim or, by whatever claims, one volume.
func shares(a, b *corev1.Pod, s scheduler.Storage) bool {
	if a.Namespace == b.Namespace && slices.ContainsFunc(b.Spec.Volumes, func(v corev1.Volume) bool {
		name := claimName(b, &v)
		return name != "" && slices.ContainsFunc(a.Spec.Volumes, func(w corev1.Volume) bool { return claimName(a, &w) == name })
	}) {
		return true
	}
	wanted := attached(a, s, nil)
	for volume := range attached(b, s, nil) {
		if _, same := wanted[volume]; same {
			return true
		}
	}
	return false
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
