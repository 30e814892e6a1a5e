package core

import (
	"github.com/sampan-dev/sampan/kinds"
)

// sourceCheck is one possible source of a volume, which S is a choice of.
type sourceCheck[S any] struct {
	// field is where a second source is refused.
	field string
	// at is where faults of the source itself are reported, if elsewhere.
	at string
	// beside says that the source is let pass, and looked at, beside others.
	beside bool
	set    func(s *S) bool
	check  func(c *podCheck, s *S, at *kinds.Path)
}

// checkSources wants exactly one source, and that one to be right: further ones are
// refused unseen. first is the field of the one that it looked at.
func checkSources[S any](c *podCheck, checks []sourceCheck[S], s *S, at *kinds.Path) (first string) {
	for i := range checks {
		source := &checks[i]
		switch {
		case !source.set(s):
			continue
		case first != "" && !source.beside:
			c.Forbidden(at.Child(source.field), "may not specify more than 1 volume type")
			continue
		}
		if first == "" {
			first = source.field
		}
		name := source.at
		if name == "" {
			name = source.field
		}
		source.check(c, s, at.Child(name))
	}
	if first == "" {
		c.Required(at, "must specify a volume type")
	}
	return first
}

// volumeChecks are all sources of a pod's volumes, in the order and under the names,
// misspelt ones too, in which upstream looks at them. Most of the remote ones no
// longer have a driver; their form is checked all the same. Nobody changes them.
var volumeChecks = []sourceCheck[volumeSource]{
	{field: "emptyDir", set: func(s *volumeSource) bool { return s.EmptyDir != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkEmptyDir(s.EmptyDir, at) }},
	{field: "hostPath", set: func(s *volumeSource) bool { return s.HostPath != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkHostPath(s.HostPath, at) }},
	{field: "gitRepo", set: func(s *volumeSource) bool { return s.GitRepo != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.NonEmpty(at.Child("repository"), s.GitRepo.Repository)
		c.descendingPath(at.Child("directory"), s.GitRepo.Directory)
	}},
	{field: "gcePersistentDisk", at: "persistentDisk", set: func(s *volumeSource) bool { return s.GCEPersistentDisk != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.checkDisk(s.GCEPersistentDisk.PDName, "pdName", s.GCEPersistentDisk.Partition, at)
	}},
	{field: "awsElasticBlockStore", set: func(s *volumeSource) bool { return s.AWSElasticBlockStore != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.checkDisk(s.AWSElasticBlockStore.VolumeID, "volumeID", s.AWSElasticBlockStore.Partition, at)
	}},
	{field: "secret", set: func(s *volumeSource) bool { return s.Secret != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkSecretVolume(s.Secret, at) }},
	{field: "nfs", set: func(s *volumeSource) bool { return s.NFS != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkNFS(s.NFS, at) }},
	{field: "iscsi", set: func(s *volumeSource) bool { return s.ISCSI != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkPodISCSI(s.ISCSI, at) }},
	{field: "glusterfs", set: func(s *volumeSource) bool { return s.Glusterfs != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.NonEmpty(at.Child("endpoints"), s.Glusterfs.EndpointsName)
		c.NonEmpty(at.Child("path"), s.Glusterfs.Path)
	}},
	{field: "flocker", set: func(s *volumeSource) bool { return s.Flocker != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkFlocker(s.Flocker, at) }},
	{field: "persistentVolumeClaim", set: func(s *volumeSource) bool { return s.PersistentVolumeClaim != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.NonEmpty(at.Child("claimName"), s.PersistentVolumeClaim.ClaimName)
	}},
	{field: "rbd", set: func(s *volumeSource) bool { return s.RBD != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.checkCeph(s.RBD.CephMonitors, at)
		c.NonEmpty(at.Child("image"), s.RBD.RBDImage)
	}},
	{field: "cinder", set: func(s *volumeSource) bool { return s.Cinder != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.NonEmpty(at.Child("volumeID"), s.Cinder.VolumeID)
		c.secretRef(at, s.Cinder.SecretRef)
	}},
	{field: "cephFS", at: "cephfs", set: func(s *volumeSource) bool { return s.CephFS != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkCeph(s.CephFS.Monitors, at) }},
	{field: "quobyte", set: func(s *volumeSource) bool { return s.Quobyte != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkQuobyte(s.Quobyte, at) }},
	{field: "downwarAPI", at: "downwardAPI", set: func(s *volumeSource) bool { return s.DownwardAPI != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkDownward(s.DownwardAPI, at) }},
	{field: "fc", set: func(s *volumeSource) bool { return s.FC != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkFC(s.FC, at) }},
	{field: "flexVolume", set: func(s *volumeSource) bool { return s.FlexVolume != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.checkFlex(s.FlexVolume.Driver, s.FlexVolume.Options, at)
	}},
	{field: "configMap", set: func(s *volumeSource) bool { return s.ConfigMap != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkConfigMapVolume(s.ConfigMap, at) }},
	{field: "azureFile", set: func(s *volumeSource) bool { return s.AzureFile != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.NonEmpty(at.Child("secretName"), s.AzureFile.SecretName)
		c.NonEmpty(at.Child("shareName"), s.AzureFile.ShareName)
	}},
	{field: "vsphereVolume", set: func(s *volumeSource) bool { return s.VsphereVolume != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.NonEmpty(at.Child("volumePath"), s.VsphereVolume.VolumePath)
	}},
	{field: "photonPersistentDisk", set: func(s *volumeSource) bool { return s.PhotonPersistentDisk != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.NonEmpty(at.Child("pdID"), s.PhotonPersistentDisk.PdID)
	}},
	{field: "portworxVolume", set: func(s *volumeSource) bool { return s.PortworxVolume != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.NonEmpty(at.Child("volumeID"), s.PortworxVolume.VolumeID)
	}},
	{field: "azureDisk", set: func(s *volumeSource) bool { return s.AzureDisk != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkAzureDisk(s.AzureDisk, at) }},
	{field: "storageos", set: func(s *volumeSource) bool { return s.StorageOS != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.checkStorageOS(s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, at)
		c.secretRef(at, s.StorageOS.SecretRef)
	}},
	{field: "projected", set: func(s *volumeSource) bool { return s.Projected != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkProjected(s.Projected, at) }},
	{field: "scaleIO", set: func(s *volumeSource) bool { return s.ScaleIO != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) {
		c.checkScaleIO(s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, at)
	}},
	{field: "csi", set: func(s *volumeSource) bool { return s.CSI != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkCSI(s.CSI, at) }},
	{field: "ephemeral", set: func(s *volumeSource) bool { return s.Ephemeral != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkEphemeral(s.Ephemeral, at) }},
	{field: "image", set: func(s *volumeSource) bool { return s.Image != nil }, check: func(c *podCheck, s *volumeSource, at *kinds.Path) { c.checkImageVolume(s.Image, at) }},
}
