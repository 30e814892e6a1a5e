package volumes

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Restrictions is upstream's VolumeRestrictions: a claim that is for one pod only
// is, and a disk that only one node can write has one user there.
type Restrictions struct{ every }

// Name implements scheduler.Filter.
func (Restrictions) Name() string { return "VolumeRestrictions" }

const (
	diskConflict = "node(s) had no available disk"
	usedByOther  = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)

// Precheck implements scheduler.Prechecker: whether a claim is for one pod only cannot
// be known before it is there.
func (Restrictions) Precheck(pod *corev1.Pod, v scheduler.View) scheduler.Reason {
	for i := range pod.Spec.Volumes {
		from := pod.Spec.Volumes[i].PersistentVolumeClaim
		if from != nil && v.Storage().Claim(pod.Namespace, from.ClaimName) == nil {
			return scheduler.Reason{Text: fmt.Sprintf("persistentvolumeclaim %q not found", from.ClaimName), Final: true}
		}
	}
	return scheduler.OK
}

// For implements scheduler.Filter.
func (Restrictions) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	var exclusive []string
	for _, claim := range claims(pod, v.Storage()) {
		if slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
			exclusive = append(exclusive, claim.Namespace+"/"+claim.Name)
		}
	}
	disks := slices.ContainsFunc(pod.Spec.Volumes, disk)
	if len(exclusive) == 0 && !disks {
		return nil
	}
	return func(n *scheduler.Node) scheduler.Reason {
		if disks && clashes(pod, n) {
			return scheduler.Reason{Text: diskConflict}
		}
		for _, key := range exclusive {
			if v.ClaimUsers(key) > 0 {
				return scheduler.Reason{Text: usedByOther}
			}
		}
		return scheduler.OK
	}
}

// disk says whether a volume is a disk that knows who has it.
func disk(v corev1.Volume) bool {
	return v.GCEPersistentDisk != nil || v.AWSElasticBlockStore != nil || v.ISCSI != nil || v.RBD != nil
}

func clashes(pod *corev1.Pod, n *scheduler.Node) bool {
	for i := range pod.Spec.Volumes {
		for _, other := range n.Pods {
			for j := range other.Spec.Volumes {
				if same(&pod.Spec.Volumes[i], &other.Spec.Volumes[j]) {
					return true
				}
			}
		}
	}
	return false
}

// same says whether two volumes are one disk that cannot be shared.
func same(a, b *corev1.Volume) bool {
	switch {
	case a.GCEPersistentDisk != nil && b.GCEPersistentDisk != nil:
		x, y := a.GCEPersistentDisk, b.GCEPersistentDisk
		return x.PDName == y.PDName && !(x.ReadOnly && y.ReadOnly)
	case a.AWSElasticBlockStore != nil && b.AWSElasticBlockStore != nil:
		return a.AWSElasticBlockStore.VolumeID == b.AWSElasticBlockStore.VolumeID
	case a.ISCSI != nil && b.ISCSI != nil:
		x, y := a.ISCSI, b.ISCSI
		return x.IQN == y.IQN && !(x.ReadOnly && y.ReadOnly)
	case a.RBD != nil && b.RBD != nil:
		x, y := a.RBD, b.RBD
		return x.RBDPool == y.RBDPool && x.RBDImage == y.RBDImage && !(x.ReadOnly && y.ReadOnly) &&
			slices.ContainsFunc(x.CephMonitors, func(m string) bool { return slices.Contains(y.CephMonitors, m) })
	}
	return false
}
