package static

import corev1 "k8s.io/api/core/v1"

// reference names what of the API a pod needs, in upstream's words, "" for
// nothing: a static pod must run without an API server.
func reference(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName != "" {
		return "serviceaccounts"
	}
	secrets, maps := len(pod.Spec.ImagePullSecrets) > 0, false
	for _, c := range all(pod) {
		for _, e := range c.EnvFrom {
			secrets, maps = secrets || e.SecretRef != nil, maps || e.ConfigMapRef != nil
		}
		for _, e := range c.Env {
			if from := e.ValueFrom; from != nil {
				secrets, maps = secrets || from.SecretKeyRef != nil, maps || from.ConfigMapKeyRef != nil
			}
		}
	}
	switch {
	case secrets:
		return "secrets"
	case maps:
		return "configmaps"
	case len(pod.Spec.ResourceClaims) > 0:
		return "resourceclaims"
	}
	for i := range pod.Spec.Volumes {
		if what := volume(&pod.Spec.Volumes[i]); what != "" {
			return what
		}
	}
	return ""
}

func all(pod *corev1.Pod) []corev1.Container {
	list := append([]corev1.Container(nil), pod.Spec.InitContainers...)
	list = append(list, pod.Spec.Containers...)
	for _, e := range pod.Spec.EphemeralContainers {
		list = append(list, corev1.Container(e.EphemeralContainerCommon))
	}
	return list
}

func volume(v *corev1.Volume) string {
	switch {
	case v.ConfigMap != nil:
		return "configmaps (via configmap volumes)"
	case v.Secret != nil:
		return "secrets (via secret volumes)"
	case v.CSI != nil:
		return "csidrivers (via CSI volumes)"
	case v.Glusterfs != nil:
		return "endpoints (via glusterFS volumes)"
	case v.PersistentVolumeClaim != nil:
		return "persistentvolumeclaims"
	case v.Ephemeral != nil:
		return "persistentvolumeclaims (via ephemeral volumes)"
	case v.AzureFile != nil:
		return "secrets (via azureFile volumes)"
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if what := projected(s); what != "" {
				return what
			}
		}
	}
	return ""
}

func projected(s corev1.VolumeProjection) string {
	switch {
	case s.ConfigMap != nil:
		return "configmaps (via projected volumes)"
	case s.Secret != nil:
		return "secrets (via projected volumes)"
	case s.ServiceAccountToken != nil:
		return "serviceaccounts (via projected volumes)"
	case s.ClusterTrustBundle != nil:
		return "clustertrustbundles"
	case s.PodCertificate != nil:
		return "podcertificates"
	}
	return ""
}
