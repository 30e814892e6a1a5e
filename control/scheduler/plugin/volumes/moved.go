package volumes

import (
	"fmt"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Drivers that do the work of volumes that were once built in, and so have their
// limits: those that upstream's scheduler counts.
const (
	driverEBS       = "ebs.csi.aws.com"
	driverGCE       = "pd.csi.storage.gke.io"
	driverAzureDisk = "disk.csi.azure.com"
	driverCinder    = "cinder.csi.openstack.org"
	driverPortworx  = "pxd.portworx.com"
)

// driverOf is the driver that makes a class' volumes; "" when nobody counts those.
func driverOf(provisioner string) string {
	switch provisioner {
	case "kubernetes.io/aws-ebs":
		return driverEBS
	case "kubernetes.io/gce-pd":
		return driverGCE
	case "kubernetes.io/azure-disk":
		return driverAzureDisk
	case "kubernetes.io/cinder":
		return driverCinder
	case "kubernetes.io/portworx-volume":
		return driverPortworx
	case "kubernetes.io/azure-file", "kubernetes.io/vsphere-volume": // moved, too, but uncounted
		return ""
	}
	return provisioner
}

// moved says whether a provisioner, by its old name, has become a driver.
func moved(provisioner string) bool { return driverOf(provisioner) != provisioner }

// movedVolume is the driver of a persistent volume that was once built in, and the
// handle that the driver knows it by; "" when it is none, or its name makes no sense.
func movedVolume(pv *corev1.PersistentVolume) (driver, handle string) {
	s := &pv.Spec
	switch {
	case s.AWSElasticBlockStore != nil:
		return handled(driverEBS, ebsHandle(s.AWSElasticBlockStore.VolumeID))
	case s.GCEPersistentDisk != nil:
		return handled(driverGCE, gceHandle(pv))
	case s.AzureDisk != nil:
		return azure(s.AzureDisk)
	case s.Cinder != nil:
		return driverCinder, s.Cinder.VolumeID
	case s.PortworxVolume != nil:
		return driverPortworx, s.PortworxVolume.VolumeID
	}
	return "", ""
}

// movedInline is movedVolume for a disk that a pod names itself. A disk of GCE is
// known by another handle there than as a persistent volume, as upstream has it.
func movedInline(v *corev1.Volume) (driver, handle string) {
	switch {
	case v.AWSElasticBlockStore != nil:
		return handled(driverEBS, ebsHandle(v.AWSElasticBlockStore.VolumeID))
	case v.GCEPersistentDisk != nil:
		return driverGCE, gceZonal(unspecified, v.GCEPersistentDisk.PDName)
	case v.AzureDisk != nil:
		return azure(v.AzureDisk)
	case v.Cinder != nil:
		return driverCinder, v.Cinder.VolumeID
	case v.PortworxVolume != nil:
		return driverPortworx, v.PortworxVolume.VolumeID
	}
	return "", ""
}

// handled is a driver that can tell which volume is meant.
func handled(driver, handle string) (string, string) {
	if handle == "" {
		return "", ""
	}
	return driver, handle
}

// azure: of three sorts of disk only the managed ones have moved.
func azure(d *corev1.AzureDiskVolumeSource) (driver, handle string) {
	if d.Kind != nil && !strings.EqualFold(string(*d.Kind), string(corev1.AzureManagedDisk)) {
		return "", ""
	}
	return driverAzureDisk, d.DataDiskURI
}

// ebsHandle is a volume's own name out of aws://zone/vol-1, or as it is.
func ebsHandle(id string) string {
	if !strings.HasPrefix(id, "aws://") {
		return id
	}
	parsed, err := url.Parse(id)
	if err != nil {
		return ""
	}
	name := strings.Trim(parsed.Path, "/")
	if !strings.HasPrefix(name, "vol-") || strings.Contains(name, "/") {
		return ""
	}
	return name
}

// unspecified stands in handles of GCE for what nobody knows here.
const unspecified = "UNSPECIFIED"

func gceZonal(zone, disk string) string {
	return fmt.Sprintf("projects/%s/zones/%s/disks/%s", unspecified, zone, disk)
}

// gceHandle says by a volume's label whether it is in one zone or, with several of
// one region, in that.
func gceHandle(pv *corev1.PersistentVolume) string {
	label := pv.Labels[corev1.LabelFailureDomainBetaZone]
	if label == "" {
		label = pv.Labels[corev1.LabelTopologyZone]
	}
	disk := pv.Spec.GCEPersistentDisk.PDName
	zones := strings.Split(label, "__")
	switch {
	case label == "":
		return gceZonal(unspecified, disk)
	case len(zones) == 1:
		return gceZonal(zones[0], disk)
	}
	region := ""
	for _, zone := range zones { // locale-region-zone
		parts := strings.Split(zone, "-")
		if len(parts) != 3 || region != "" && region != parts[0]+"-"+parts[1] {
			return ""
		}
		region = parts[0] + "-" + parts[1]
	}
	return fmt.Sprintf("projects/%s/regions/%s/disks/%s", unspecified, region, disk)
}
