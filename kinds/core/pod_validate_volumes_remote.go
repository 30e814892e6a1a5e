package core

import (
	"net"
	"path"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// The forms of an iSCSI qualified name, by how it begins (RFC 3720, 3980).
var (
	iscsiIQN = regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`)
	iscsiEUI = regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)
	iscsiNAA = regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)
)

// remoteVolumeChecks are the sources that live outside the node. Most of them
// no longer have a driver; their form is checked all the same.
var remoteVolumeChecks = []volumeCheck{
	{"gitRepo", func(s *volumeSource) bool { return s.GitRepo != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("repository"), s.GitRepo.Repository)
		c.descendingPath(at.Child("directory"), s.GitRepo.Directory)
	}},
	{"gcePersistentDisk", func(s *volumeSource) bool { return s.GCEPersistentDisk != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("pdName"), s.GCEPersistentDisk.PDName)
		c.partition(at.Child("partition"), s.GCEPersistentDisk.Partition)
	}},
	{"awsElasticBlockStore", func(s *volumeSource) bool { return s.AWSElasticBlockStore != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("volumeID"), s.AWSElasticBlockStore.VolumeID)
		c.partition(at.Child("partition"), s.AWSElasticBlockStore.Partition)
	}},
	{"nfs", func(s *volumeSource) bool { return s.NFS != nil }, func(c *podCheck, s *volumeSource, at *field.Path) { c.checkNFS(s.NFS, at) }},
	{"iscsi", func(s *volumeSource) bool { return s.ISCSI != nil }, func(c *podCheck, s *volumeSource, at *field.Path) { c.checkISCSI(s.ISCSI, at) }},
	{"glusterfs", func(s *volumeSource) bool { return s.Glusterfs != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("endpoints"), s.Glusterfs.EndpointsName)
		c.NonEmpty(at.Child("path"), s.Glusterfs.Path)
	}},
	{"flocker", func(s *volumeSource) bool { return s.Flocker != nil }, func(c *podCheck, s *volumeSource, at *field.Path) { c.checkFlocker(s.Flocker, at) }},
	{"rbd", func(s *volumeSource) bool { return s.RBD != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.needList(at.Child("monitors"), s.RBD.CephMonitors)
		c.NonEmpty(at.Child("image"), s.RBD.RBDImage)
	}},
	{"cinder", func(s *volumeSource) bool { return s.Cinder != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("volumeID"), s.Cinder.VolumeID)
		c.secretRef(at, s.Cinder.SecretRef)
	}},
	{"cephfs", func(s *volumeSource) bool { return s.CephFS != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.needList(at.Child("monitors"), s.CephFS.Monitors)
	}},
	{"quobyte", func(s *volumeSource) bool { return s.Quobyte != nil }, func(c *podCheck, s *volumeSource, at *field.Path) { c.checkQuobyte(s.Quobyte, at) }},
	{"fc", func(s *volumeSource) bool { return s.FC != nil }, func(c *podCheck, s *volumeSource, at *field.Path) { c.checkFC(s.FC, at) }},
	{"flexVolume", func(s *volumeSource) bool { return s.FlexVolume != nil }, func(c *podCheck, s *volumeSource, at *field.Path) { c.checkFlex(s.FlexVolume, at) }},
	{"azureFile", func(s *volumeSource) bool { return s.AzureFile != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("secretName"), s.AzureFile.SecretName)
		c.NonEmpty(at.Child("shareName"), s.AzureFile.ShareName)
	}},
	{"vsphereVolume", func(s *volumeSource) bool { return s.VsphereVolume != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("volumePath"), s.VsphereVolume.VolumePath)
	}},
	{"photonPersistentDisk", func(s *volumeSource) bool { return s.PhotonPersistentDisk != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("pdID"), s.PhotonPersistentDisk.PdID)
	}},
	{"portworxVolume", func(s *volumeSource) bool { return s.PortworxVolume != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("volumeID"), s.PortworxVolume.VolumeID)
	}},
	{"azureDisk", func(s *volumeSource) bool { return s.AzureDisk != nil }, func(c *podCheck, s *volumeSource, at *field.Path) { c.checkAzureDisk(s.AzureDisk, at) }},
	{"storageos", func(s *volumeSource) bool { return s.StorageOS != nil }, func(c *podCheck, s *volumeSource, at *field.Path) { c.checkStorageOS(s.StorageOS, at) }},
	{"scaleIO", func(s *volumeSource) bool { return s.ScaleIO != nil }, func(c *podCheck, s *volumeSource, at *field.Path) {
		c.NonEmpty(at.Child("gateway"), s.ScaleIO.Gateway)
		c.NonEmpty(at.Child("system"), s.ScaleIO.System)
		c.NonEmpty(at.Child("volumeName"), s.ScaleIO.VolumeName)
	}},
}

// partition may be 0, whatever the message says: that is "the whole disk".
func (c *podCheck) partition(at *field.Path, number int32) {
	if number < 0 || number > 255 {
		c.Invalid(at, number, validation.InclusiveRangeError(1, 255))
	}
}

func (c *podCheck) needList(at *field.Path, list []string) {
	if len(list) == 0 {
		c.Required(at, "")
	}
}

func (c *podCheck) secretRef(at *field.Path, ref *corev1.LocalObjectReference) {
	if ref != nil {
		c.NonEmpty(at.Child("secretRef", "name"), ref.Name)
	}
}

func (c *podCheck) lun(at *field.Path, number int32) {
	if number < 0 || number > 255 {
		c.Invalid(at, number, validation.InclusiveRangeError(0, 255))
	}
}

func (c *podCheck) checkNFS(s *corev1.NFSVolumeSource, at *field.Path) {
	c.NonEmpty(at.Child("server"), s.Server)
	c.NonEmpty(at.Child("path"), s.Path)
	if !path.IsAbs(s.Path) {
		c.Invalid(at.Child("path"), s.Path, absolutePathText)
	}
}

func (c *podCheck) checkISCSI(s *corev1.ISCSIVolumeSource, at *field.Path) {
	c.NonEmpty(at.Child("targetPortal"), s.TargetPortal)
	if c.NonEmpty(at.Child("iqn"), s.IQN) {
		c.iscsiName(at.Child("iqn"), s.IQN)
	}
	c.lun(at.Child("lun"), s.Lun)
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		c.Required(at.Child("secretRef"), "")
	}
	if s.InitiatorName != nil {
		c.iscsiName(at.Child("initiatorname"), *s.InitiatorName)
	}
}

func (c *podCheck) iscsiName(at *field.Path, name string) {
	for prefix, form := range map[string]*regexp.Regexp{"iqn": iscsiIQN, "eui": iscsiEUI, "naa": iscsiNAA} {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if !form.MatchString(name) {
			c.Invalid(at, name, "must be valid format")
		}
		return
	}
	c.Invalid(at, name, "must be valid format starting with iqn, eui, or naa")
}

func (c *podCheck) checkFlocker(s *corev1.FlockerVolumeSource, at *field.Path) {
	switch {
	case s.DatasetName == "" && s.DatasetUUID == "":
		c.Required(at, "one of datasetName and datasetUUID is required")
	case s.DatasetName != "" && s.DatasetUUID != "":
		c.Invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously")
	}
	if strings.Contains(s.DatasetName, "/") {
		c.Invalid(at.Child("datasetName"), s.DatasetName, "must not contain '/'")
	}
}

func (c *podCheck) checkQuobyte(s *corev1.QuobyteVolumeSource, at *field.Path) {
	switch {
	case s.Registry == "":
		c.Required(at.Child("registry"), "must be a host:port pair or multiple pairs separated by commas")
	case len(s.Tenant) >= 65:
		c.Required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters")
	default:
		for _, pair := range strings.Split(s.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				c.Invalid(at.Child("registry"), s.Registry, "must be a host:port pair or multiple pairs separated by commas")
			}
		}
	}
	c.NonEmpty(at.Child("volume"), s.Volume)
}

func (c *podCheck) checkFC(s *corev1.FCVolumeSource, at *field.Path) {
	targets := at.Child("targetWWNs")
	switch {
	case len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0:
		c.Required(targets, "must specify either targetWWNs or wwids, but not both")
	case len(s.TargetWWNs) > 0 && len(s.WWIDs) > 0:
		c.Invalid(targets, s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	}
	if len(s.TargetWWNs) == 0 {
		return
	}
	if s.Lun == nil {
		c.Required(at.Child("lun"), "lun is required if targetWWNs is specified")
		return
	}
	c.lun(at.Child("lun"), *s.Lun)
}

func (c *podCheck) checkFlex(s *corev1.FlexVolumeSource, at *field.Path) {
	c.NonEmpty(at.Child("driver"), s.Driver)
	for key := range s.Options {
		namespace, _, _ := strings.Cut(key, "/")
		normal := "." + strings.ToLower(namespace)
		if strings.HasSuffix(normal, ".kubernetes.io") || strings.HasSuffix(normal, ".k8s.io") {
			c.Invalid(at.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

func (c *podCheck) checkAzureDisk(s *corev1.AzureDiskVolumeSource, at *field.Path) {
	c.NonEmpty(at.Child("diskName"), s.DiskName)
	c.NonEmpty(at.Child("diskURI"), s.DataDiskURI)
	if s.CachingMode != nil {
		kinds.OneOf(&c.Faults, at.Child("cachingMode"), *s.CachingMode, corev1.AzureDataDiskCachingNone,
			corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	}
	if s.Kind == nil {
		return
	}
	kinds.OneOf(&c.Faults, at.Child("kind"), *s.Kind, corev1.AzureSharedBlobDisk, corev1.AzureDedicatedBlobDisk,
		corev1.AzureManagedDisk)
	prefix, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *s.Kind == corev1.AzureManagedDisk {
		prefix, form = "/subscriptions/", "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(s.DataDiskURI, prefix) {
		kinds.OneOf(&c.Faults, at.Child("diskURI"), s.DataDiskURI, form)
	}
}

func (c *podCheck) checkStorageOS(s *corev1.StorageOSVolumeSource, at *field.Path) {
	if c.NonEmpty(at.Child("volumeName"), s.VolumeName) {
		c.label(at.Child("volumeName"), s.VolumeName)
	}
	if s.VolumeNamespace != "" {
		c.label(at.Child("volumeNamespace"), s.VolumeNamespace)
	}
	c.secretRef(at, s.SecretRef)
}
