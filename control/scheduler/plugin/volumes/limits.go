package volumes

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Limits is upstream's NodeVolumeLimits: a driver can attach so many volumes to a
// node, as its CSINode says.
type Limits struct{ every }

// Name implements scheduler.Filter.
func (Limits) Name() string { return "NodeVolumeLimits" }

// For implements scheduler.Filter.
func (Limits) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	wanted := attached(pod, v.Storage(), nil)
	if len(wanted) == 0 {
		return nil
	}
	return func(n *scheduler.Node) scheduler.Reason { return room(n, wanted, v.Storage()) }
}

// room says whether a node takes so many more volumes, by driver.
func room(n *scheduler.Node, wanted map[string]string, s scheduler.Storage) scheduler.Reason {
	on := s.CSINode(n.Name)
	for _, driver := range slices.Sorted(maps.Values(wanted)) {
		if d := s.CSIDriver(driver); d != nil && demands(d) && !installed(on, driver) {
			return scheduler.Reason{Text: driver + " CSI driver is not installed on the node"}
		}
	}
	limits := limitsIn(on)
	if len(limits) == 0 {
		return scheduler.OK
	}
	there := map[string]string{}
	for _, p := range n.Pods {
		there = attached(p.Pod, s, there)
	}
	for _, a := range s.Attachments(n.Name) { // also those that no pod uses any more, or yet
		if name := a.Spec.Source.PersistentVolumeName; name != nil && a.Spec.Attacher != "" {
			if pv := s.Volume(*name); pv != nil && pv.Spec.CSI != nil {
				there[a.Spec.Attacher+"/"+pv.Spec.CSI.VolumeHandle] = a.Spec.Attacher
			}
		}
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

// demands says whether pods with a driver's volumes go only where it is installed.
func demands(d *storagev1.CSIDriver) bool {
	return d.Spec.PreventPodSchedulingIfMissing != nil && *d.Spec.PreventPodSchedulingIfMissing
}

func installed(on *storagev1.CSINode, driver string) bool {
	return on != nil && slices.ContainsFunc(on.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == driver })
}

// limitsIn is how many volumes each driver can attach to a node.
func limitsIn(on *storagev1.CSINode) map[string]int32 {
	if on == nil {
		return nil
	}
	limits := map[string]int32{}
	for _, d := range on.Spec.Drivers {
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
