package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

type persistentSource = corev1.PersistentVolumeSource

// persistentChecks are all sources of persistent volumes, as volumeChecks are those of
// a pod's.
var persistentChecks = []sourceCheck[persistentSource]{
	{field: "hostPath", set: func(s *persistentSource) bool { return s.HostPath != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkHostPath(s.HostPath, at) }},
	{field: "gcePersistentDisk", at: "persistentDisk", set: func(s *persistentSource) bool { return s.GCEPersistentDisk != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.checkDisk(s.GCEPersistentDisk.PDName, "pdName", s.GCEPersistentDisk.Partition, at)
	}},
	{field: "awsElasticBlockStore", set: func(s *persistentSource) bool { return s.AWSElasticBlockStore != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.checkDisk(s.AWSElasticBlockStore.VolumeID, "volumeID", s.AWSElasticBlockStore.Partition, at)
	}},
	{field: "glusterfs", set: func(s *persistentSource) bool { return s.Glusterfs != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkPersistentGluster(s.Glusterfs, at) }},
	{field: "flocker", set: func(s *persistentSource) bool { return s.Flocker != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkFlocker(s.Flocker, at) }},
	{field: "nfs", set: func(s *persistentSource) bool { return s.NFS != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkNFS(s.NFS, at) }},
	{field: "rbd", set: func(s *persistentSource) bool { return s.RBD != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.checkCeph(s.RBD.CephMonitors, at)
		c.NonEmpty(at.Child("image"), s.RBD.RBDImage)
	}},
	{field: "quobyte", set: func(s *persistentSource) bool { return s.Quobyte != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkQuobyte(s.Quobyte, at) }},
	{field: "cephFS", at: "cephfs", set: func(s *persistentSource) bool { return s.CephFS != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkCeph(s.CephFS.Monitors, at) }},
	{field: "iscsi", set: func(s *persistentSource) bool { return s.ISCSI != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkPersistentISCSI(s.ISCSI, at) }},
	{field: "cinder", set: func(s *persistentSource) bool { return s.Cinder != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.NonEmpty(at.Child("volumeID"), s.Cinder.VolumeID)
		c.fullSecretRef(at, s.Cinder.SecretRef)
	}},
	{field: "fc", set: func(s *persistentSource) bool { return s.FC != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkFC(s.FC, at) }},
	{field: "flexVolume", beside: true, set: func(s *persistentSource) bool { return s.FlexVolume != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.checkFlex(s.FlexVolume.Driver, s.FlexVolume.Options, at)
	}},
	{field: "azureFile", set: func(s *persistentSource) bool { return s.AzureFile != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkPersistentAzureFile(s.AzureFile, at) }},
	{field: "vsphereVolume", set: func(s *persistentSource) bool { return s.VsphereVolume != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.NonEmpty(at.Child("volumePath"), s.VsphereVolume.VolumePath)
	}},
	{field: "photonPersistentDisk", set: func(s *persistentSource) bool { return s.PhotonPersistentDisk != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.NonEmpty(at.Child("pdID"), s.PhotonPersistentDisk.PdID)
	}},
	{field: "portworxVolume", set: func(s *persistentSource) bool { return s.PortworxVolume != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.NonEmpty(at.Child("volumeID"), s.PortworxVolume.VolumeID)
	}},
	{field: "azureDisk", set: func(s *persistentSource) bool { return s.AzureDisk != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkAzureDisk(s.AzureDisk, at) }},
	{field: "scaleIO", set: func(s *persistentSource) bool { return s.ScaleIO != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.checkScaleIO(s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, at)
	}},
	{field: "local", set: func(s *persistentSource) bool { return s.Local != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		if c.NonEmpty(at.Child("path"), s.Local.Path) {
			c.noBacksteps(at.Child("path"), s.Local.Path)
		}
		if !c.placed {
			c.Required(c.root.Child("nodeAffinity"), "Local volume requires node affinity")
		}
	}},
	{field: "storageos", set: func(s *persistentSource) bool { return s.StorageOS != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) {
		c.checkStorageOS(s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, at)
		if ref := s.StorageOS.SecretRef; ref != nil {
			c.NonEmpty(at.Child("secretRef").Child("name"), ref.Name)
			c.NonEmpty(at.Child("secretRef").Child("namespace"), ref.Namespace)
		}
	}},
	{field: "csi", set: func(s *persistentSource) bool { return s.CSI != nil }, check: func(c *podCheck, s *persistentSource, at *kinds.Path) { c.checkPersistentCSI(s.CSI, at) }},
}

func (c *podCheck) checkPersistentGluster(s *corev1.GlusterfsPersistentVolumeSource, at *kinds.Path) {
	c.NonEmpty(at.Child("endpoints"), s.EndpointsName)
	c.NonEmpty(at.Child("path"), s.Path)
	namespace := s.EndpointsNamespace
	switch here := at.Child("endpointsNamespace"); {
	case namespace == nil:
	case *namespace == "":
		c.Invalid(here, *namespace, "if the endpointnamespace is set, it must be a valid namespace name")
	default:
		c.Each(here, *namespace, validation.IsDNS1123Label(*namespace))
	}
}

func (c *podCheck) checkPersistentISCSI(s *corev1.ISCSIPersistentVolumeSource, at *kinds.Path) {
	check := &iscsiCheck{
		iqn: s.IQN, initiator: s.InitiatorName, lun: s.Lun,
		needsSecret: (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil,
		other:       iscsiText,
	}
	c.NonEmpty(at.Child("targetPortal"), s.TargetPortal)
	if s.InitiatorName != nil && len(c.podName()+":"+s.TargetPortal) > maxInitiator {
		c.Invalid(at.Child("targetportal"), s.TargetPortal, initiatorText)
	}
	c.checkISCSI(check, at)
	if s.SecretRef != nil {
		c.NonEmpty(at.Child("secretRef").Child("name"), s.SecretRef.Name)
	}
	c.checkInitiator(check, at)
}

func (c *podCheck) checkPersistentAzureFile(s *corev1.AzureFilePersistentVolumeSource, at *kinds.Path) {
	c.NonEmpty(at.Child("secretName"), s.SecretName)
	c.NonEmpty(at.Child("shareName"), s.ShareName)
	if s.SecretNamespace != nil {
		c.NonEmpty(at.Child("secretNamespace"), *s.SecretNamespace)
	}
}

func (c *podCheck) fullSecretRef(at *kinds.Path, ref *corev1.SecretReference) {
	if ref != nil {
		c.NonEmpty(at.Child("secretRef").Child("name"), ref.Name)
		c.NonEmpty(at.Child("secretRef").Child("namespace"), ref.Namespace)
	}
}

// checkPersistentCSI leaves the secret for staging alone, as upstream.
func (c *podCheck) checkPersistentCSI(s *corev1.CSIPersistentVolumeSource, at *kinds.Path) {
	c.Join(validateDriverName(s.Driver, at.Child("driver")))
	c.NonEmpty(at.Child("volumeHandle"), s.VolumeHandle)
	c.checkSecretRef(s.ControllerPublishSecretRef, at.Child("controllerPublishSecretRef"))
	c.checkSecretRef(s.ControllerExpandSecretRef, at.Child("controllerExpandSecretRef"))
	c.checkSecretRef(s.NodePublishSecretRef, at.Child("nodePublishSecretRef"))
	c.checkSecretRef(s.NodeExpandSecretRef, at.Child("nodeExpandSecretRef"))
}

func (c *podCheck) checkSecretRef(ref *corev1.SecretReference, at *kinds.Path) {
	if ref == nil {
		return
	}
	if c.NonEmpty(at.Child("name"), ref.Name) {
		c.subdomain(at.Child("name"), ref.Name)
	}
	if c.NonEmpty(at.Child("namespace"), ref.Namespace) {
		c.label(at.Child("namespace"), ref.Namespace)
	}
}
