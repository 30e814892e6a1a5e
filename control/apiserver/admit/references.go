package admit

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// references say whether a pod names secrets and config maps.
type references struct{ secrets, configMaps bool }

func refersTo(pod *corev1.Pod) (r references) {
	r.secrets = len(pod.Spec.ImagePullSecrets) > 0
	for _, v := range pod.Spec.Volumes {
		r.add(&v)
	}
	see := func(env []corev1.EnvVar, from []corev1.EnvFromSource) {
		for _, e := range env {
			if e.ValueFrom != nil {
				r.secrets = r.secrets || e.ValueFrom.SecretKeyRef != nil
				r.configMaps = r.configMaps || e.ValueFrom.ConfigMapKeyRef != nil
			}
		}
		for _, e := range from {
			r.secrets = r.secrets || e.SecretRef != nil
			r.configMaps = r.configMaps || e.ConfigMapRef != nil
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		see(c.Env, c.EnvFrom)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		see(c.Env, c.EnvFrom)
	}
	return r
}

func (r *references) add(v *corev1.Volume) {
	s := &v.VolumeSource
	r.configMaps = r.configMaps || s.ConfigMap != nil
	r.secrets = r.secrets || s.Secret != nil ||
		s.AzureFile != nil || s.CephFS != nil && s.CephFS.SecretRef != nil ||
		s.Cinder != nil && s.Cinder.SecretRef != nil || s.FlexVolume != nil && s.FlexVolume.SecretRef != nil ||
		s.RBD != nil && s.RBD.SecretRef != nil || s.ScaleIO != nil && s.ScaleIO.SecretRef != nil ||
		s.ISCSI != nil && s.ISCSI.SecretRef != nil || s.StorageOS != nil && s.StorageOS.SecretRef != nil ||
		s.CSI != nil && s.CSI.NodePublishSecretRef != nil
	if s.Projected == nil {
		return
	}
	for _, p := range s.Projected.Sources {
		r.secrets = r.secrets || p.Secret != nil
		r.configMaps = r.configMaps || p.ConfigMap != nil
	}
}

// reaches says which objects of the cluster a pod reaches for: the first of them, in
// upstream's words and order; "" for a pod that its node can run by itself.
func reaches(pod *corev1.Pod) string {
	refs := refersTo(pod)
	switch {
	case pod.Spec.ServiceAccountName != "":
		return "serviceaccounts"
	case refs.secrets:
		return "secrets"
	case refs.configMaps:
		return "configmaps"
	case len(pod.Spec.ResourceClaims) > 0:
		return "resourceclaims"
	}
	for i := range pod.Spec.Volumes {
		if what := volumeReaches(&pod.Spec.Volumes[i]); what != "" {
			return what
		}
	}
	return ""
}

// volumeReaches is reaches for a volume without secrets and config maps.
func volumeReaches(v *corev1.Volume) string {
	switch {
	case v.CSI != nil:
		return "csidrivers (via CSI volumes)"
	case v.Glusterfs != nil:
		return "endpoints (via glusterFS volumes)"
	case v.PersistentVolumeClaim != nil:
		return "persistentvolumeclaims"
	case v.Ephemeral != nil:
		return "persistentvolumeclaims (via ephemeral volumes)"
	case v.Projected == nil:
		return ""
	}
	for _, s := range v.Projected.Sources {
		switch {
		case s.ServiceAccountToken != nil:
			return "serviceaccounts (via projected volumes)"
		case s.ClusterTrustBundle != nil:
			return "clustertrustbundles"
		case s.PodCertificate != nil:
			return "podcertificates"
		}
	}
	return ""
}
