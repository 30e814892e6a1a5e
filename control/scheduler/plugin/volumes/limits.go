package volumes

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Limits is upstream's NodeVolumeLimits: a driver can attach so many volumes to a
// node, as its CSINode says.
type Limits struct{ every }

// Name implements scheduler.Filter.
func (Limits) Name() string { return "NodeVolumeLimits" }

// Heeds implements scheduler.Filter.
func (Limits) Heeds() scheduler.ChangeKind {
	return scheduler.PodRemoved | scheduler.NodeAdded | scheduler.StorageChanged
}

// Helps implements scheduler.Filter.
func (Limits) Helps(_ *corev1.Pod, c scheduler.Change, _ scheduler.View) bool {
	return c.Pod == nil || len(c.Pod.Spec.Volumes) > 0
}

// For implements scheduler.Filter.
func (Limits) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	wanted := attached(pod, v.Storage(), nil)
	if len(wanted) == 0 {
		return nil
	}
	return func(n *scheduler.Node) scheduler.Reason {
		limits := limitsOf(n.Name, v.Storage())
		if len(limits) == 0 {
			return scheduler.OK
		}
		there := map[string]string{}
		for _, p := range n.Pods {
			there = attached(p.Pod, v.Storage(), there)
		}
		count := map[string]int32{}
		for _, driver := range there {
			count[driver]++
		}
		for volume, driver := range wanted {
			if _, shared := there[volume]; shared {
				continue
			}
			count[driver]++
			if limit, ok := limits[driver]; ok && count[driver] > limit {
				return scheduler.Reason{Text: "node(s) exceed max volume count"}
			}
		}
		return scheduler.OK
	}
}

// limitsOf is how many volumes each driver can attach to a node.
func limitsOf(node string, s scheduler.Storage) map[string]int32 {
	csi := s.CSINode(node)
	if csi == nil {
		return nil
	}
	limits := map[string]int32{}
	for _, d := range csi.Spec.Drivers {
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			limits[d.Name] = *d.Allocatable.Count
		}
	}
	return limits
}

// attached adds the volumes of a pod that a CSI driver attaches, by driver. A
// claim without a volume counts as the one that will be made for it.
func attached(pod *corev1.Pod, s scheduler.Storage, into map[string]string) map[string]string {
	for _, claim := range claims(pod, s) {
		driver, handle := "", claim.Namespace+"/"+claim.Name
		if pv := s.Volume(claim.Spec.VolumeName); pv != nil {
			if pv.Spec.CSI == nil {
				continue
			}
			driver, handle = pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle
		} else if class := s.Class(className(claim)); class != nil {
			driver = class.Provisioner
		}
		if driver == "" {
			continue
		}
		if into == nil {
			into = map[string]string{}
		}
		into[driver+"/"+handle] = driver
	}
	return into
}
