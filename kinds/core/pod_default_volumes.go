package core

import corev1 "k8s.io/api/core/v1"

// The modes and lifetimes that volumes have unless told otherwise.
const (
	defaultFileMode        int32 = 0o644
	defaultTokenExpiration int64 = 3600
)

func defaultVolume(v *corev1.Volume) {
	s := &v.VolumeSource
	if *s == (corev1.VolumeSource{}) {
		s.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	if s.Secret != nil {
		orDefault(&s.Secret.DefaultMode, defaultFileMode)
	}
	if s.ConfigMap != nil {
		orDefault(&s.ConfigMap.DefaultMode, defaultFileMode)
	}
	if s.DownwardAPI != nil {
		orDefault(&s.DownwardAPI.DefaultMode, defaultFileMode)
		defaultDownward(s.DownwardAPI.Items)
	}
	if s.Projected != nil {
		defaultProjected(s.Projected)
	}
	defaultHostPath(s.HostPath)
	if s.Ephemeral != nil && s.Ephemeral.VolumeClaimTemplate != nil {
		defaultClaimSpec(&s.Ephemeral.VolumeClaimTemplate.Spec)
	}
	if s.Image != nil {
		orString(&s.Image.PullPolicy, pullPolicy(s.Image.Reference))
	}
	defaultNetworkVolume(s)
}

func defaultProjected(p *corev1.ProjectedVolumeSource) {
	orDefault(&p.DefaultMode, defaultFileMode)
	for i := range p.Sources {
		if token := p.Sources[i].ServiceAccountToken; token != nil {
			orDefault(&token.ExpirationSeconds, defaultTokenExpiration)
		}
		if downward := p.Sources[i].DownwardAPI; downward != nil {
			defaultDownward(downward.Items)
		}
	}
}

func defaultDownward(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		defaultFieldRef(items[i].FieldRef)
	}
}

// defaultNetworkVolume does the sources that live elsewhere.
func defaultNetworkVolume(s *corev1.VolumeSource) {
	if s.ISCSI != nil {
		orString(&s.ISCSI.ISCSIInterface, iscsiInterface)
	}
	if s.RBD != nil {
		defaultRBD(&s.RBD.RBDPool, &s.RBD.RadosUser, &s.RBD.Keyring)
	}
	defaultAzureDisk(s.AzureDisk)
	if s.ScaleIO != nil {
		defaultScaleIO(&s.ScaleIO.StorageMode, &s.ScaleIO.FSType)
	}
}

// defaultPersistentSource does for persistent volumes what defaultVolume does for a
// pod's.
func defaultPersistentSource(s *corev1.PersistentVolumeSource) {
	defaultHostPath(s.HostPath)
	defaultAzureDisk(s.AzureDisk)
	if s.ISCSI != nil {
		orString(&s.ISCSI.ISCSIInterface, iscsiInterface)
	}
	if s.RBD != nil {
		defaultRBD(&s.RBD.RBDPool, &s.RBD.RadosUser, &s.RBD.Keyring)
	}
	if s.ScaleIO != nil {
		defaultScaleIO(&s.ScaleIO.StorageMode, &s.ScaleIO.FSType)
	}
}

// iscsiInterface is TCP.
const iscsiInterface = "default"

func defaultHostPath(s *corev1.HostPathVolumeSource) {
	if s != nil {
		orDefault(&s.Type, corev1.HostPathUnset)
	}
}

func defaultAzureDisk(s *corev1.AzureDiskVolumeSource) {
	if s == nil {
		return
	}
	orDefault(&s.CachingMode, corev1.AzureDataDiskCachingReadWrite)
	orDefault(&s.Kind, corev1.AzureSharedBlobDisk)
	orDefault(&s.FSType, "ext4")
	orDefault(&s.ReadOnly, false)
}

func defaultRBD(pool, user, keyring *string) {
	orString(pool, "rbd")
	orString(user, "admin")
	orString(keyring, "/etc/ceph/keyring")
}

func defaultScaleIO(mode, fsType *string) {
	orString(mode, "ThinProvisioned")
	orString(fsType, "xfs")
}
