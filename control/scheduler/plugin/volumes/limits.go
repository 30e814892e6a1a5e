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
	drivers := map[string]string{}
	born := map[string]string{} // a node that says nothing of drivers counts no others
	for volume, w := range wanted {
		drivers[volume] = w.driver
		if !w.moved {
			born[volume] = w.driver
		}
	}
	return func(n *scheduler.Node) scheduler.Reason {
		if v.Storage().CSINode(n.Name) == nil {
			return room(n, born, v.Storage())
		}
		return room(n, drivers, v.Storage())
	}
}

// attachment is what a driver attaches.
type attachment struct {
	driver string
	moved  bool // it was once built in
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
	disks := map[string]attachment{}
	for _, p := range n.Pods {
		disks = attached(p.Pod, s, disks)
	}
	there := map[string]string{}
	for volume, d := range disks {
		there[volume] = d.driver
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

// attached adds the volumes of a pod that a CSI driver attaches, those that were once
// built in as well. A claim without a volume counts as the one that will be made for it.
func attached(pod *corev1.Pod, s scheduler.Storage, into map[string]attachment) map[string]attachment {
	add := func(driver, handle string, moved bool) {
		if driver == "" {
			return
		}
		if into == nil {
			into = map[string]attachment{}
		}
		into[driver+"/"+handle] = attachment{driver, moved}
	}
	for i := range pod.Spec.Volumes {
		driver, handle := movedInline(&pod.Spec.Volumes[i])
		add(driver, handle, true)
	}
	for _, claim := range claims(pod, s) {
		pv, class := s.Volume(claim.Spec.VolumeName), s.Class(className(claim))
		switch {
		case pv != nil && pv.Spec.CSI != nil:
			add(pv.Spec.CSI.Driver, pv.Spec.CSI.VolumeHandle, false)
		case pv != nil:
			driver, handle := movedVolume(pv)
			add(driver, handle, true)
		case class != nil:
			add(driverOf(class.Provisioner), claim.Namespace+"/"+claim.Name, moved(class.Provisioner))
		}
	}
	return into
}
