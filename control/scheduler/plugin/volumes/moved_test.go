package volumes

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMovedVolumes(t *testing.T) {
	ebs := func(id string) corev1.PersistentVolumeSource {
		return corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: id}}
	}
	gce := corev1.PersistentVolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "d"}}
	azureKind := func(k corev1.AzureDataDiskKind) corev1.PersistentVolumeSource {
		return corev1.PersistentVolumeSource{AzureDisk: &corev1.AzureDiskVolumeSource{DataDiskURI: "/d", Kind: &k}}
	}
	for _, c := range []struct {
		name   string
		source corev1.PersistentVolumeSource
		zone   string
		want   string
	}{
		{"ebs bare", ebs("vol-1"), "", "ebs.csi.aws.com vol-1"},
		{"ebs with zone", ebs("aws://a/vol-1"), "", "ebs.csi.aws.com vol-1"},
		{"ebs without zone", ebs("aws:///vol-1"), "", "ebs.csi.aws.com vol-1"},
		{"ebs nonsense", ebs("aws://a/disk"), "", " "},
		{"gce nowhere", gce, "", "pd.csi.storage.gke.io projects/UNSPECIFIED/zones/UNSPECIFIED/disks/d"},
		{"gce in a zone", gce, "us-east1-b", "pd.csi.storage.gke.io projects/UNSPECIFIED/zones/us-east1-b/disks/d"},
		{"gce in a region", gce, "us-east1-b__us-east1-c", "pd.csi.storage.gke.io projects/UNSPECIFIED/regions/us-east1/disks/d"},
		{"gce in two regions", gce, "us-east1-b__us-east2-c", " "},
		{"managed disk", azureKind(corev1.AzureManagedDisk), "", "disk.csi.azure.com /d"},
		{"shared disk", azureKind(corev1.AzureSharedBlobDisk), "", " "},
		{"cinder", corev1.PersistentVolumeSource{Cinder: &corev1.CinderPersistentVolumeSource{VolumeID: "c"}}, "", "cinder.csi.openstack.org c"},
		{"portworx", corev1.PersistentVolumeSource{PortworxVolume: &corev1.PortworxVolumeSource{VolumeID: "p"}}, "", "pxd.portworx.com p"},
		{"nfs", corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/"}}, "", " "},
	} {
		pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: c.source}}
		if c.zone != "" {
			pv.Labels[corev1.LabelTopologyZone] = c.zone
		}
		driver, handle := movedVolume(pv)
		if got := driver + " " + handle; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestMovedInline(t *testing.T) {
	for _, c := range []struct {
		source corev1.VolumeSource
		want   string
	}{
		{corev1.VolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "vol-1"}}, "ebs.csi.aws.com vol-1"},
		{corev1.VolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "d"}}, "pd.csi.storage.gke.io projects/UNSPECIFIED/zones/UNSPECIFIED/disks/d"},
		{corev1.VolumeSource{AzureDisk: &corev1.AzureDiskVolumeSource{DataDiskURI: "/d"}}, "disk.csi.azure.com /d"},
		{corev1.VolumeSource{Cinder: &corev1.CinderVolumeSource{VolumeID: "c"}}, "cinder.csi.openstack.org c"},
		{corev1.VolumeSource{PortworxVolume: &corev1.PortworxVolumeSource{VolumeID: "p"}}, "pxd.portworx.com p"},
		{corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, " "},
	} {
		driver, handle := movedInline(&corev1.Volume{VolumeSource: c.source})
		if got := driver + " " + handle; got != c.want {
			t.Errorf("%+v: %q, want %q", c.source, got, c.want)
		}
	}
}

func TestDriverOf(t *testing.T) {
	for provisioner, want := range map[string]string{
		"kubernetes.io/aws-ebs": driverEBS, "kubernetes.io/azure-file": "", "kubernetes.io/no-provisioner": "kubernetes.io/no-provisioner", "csi.test": "csi.test",
	} {
		if got := driverOf(provisioner); got != want {
			t.Errorf("%s: %q, want %q", provisioner, got, want)
		}
	}
}
