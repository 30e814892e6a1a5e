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
	if s.HostPath != nil {
		orDefault(&s.HostPath.Type, corev1.HostPathUnset)
	}
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
		orString(&s.ISCSI.ISCSIInterface, "default")
	}
	if s.RBD != nil {
		orString(&s.RBD.RBDPool, "rbd")
		orString(&s.RBD.RadosUser, "admin")
		orString(&s.RBD.Keyring, "/etc/ceph/keyring")
	}
	if s.AzureDisk != nil {
		orDefault(&s.AzureDisk.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		orDefault(&s.AzureDisk.Kind, corev1.AzureSharedBlobDisk)
		orDefault(&s.AzureDisk.FSType, "ext4")
		orDefault(&s.AzureDisk.ReadOnly, false)
	}
	if s.ScaleIO != nil {
		orString(&s.ScaleIO.StorageMode, "ThinProvisioned")
		orString(&s.ScaleIO.FSType, "xfs")
	}
}
