package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kinds"
)

// The annotation that mountOptions took the place of.
const mountOptionsAnnotation = "volume.beta.kubernetes.io/mount-options"

func volumeWarnings(v *corev1.PersistentVolume) []string {
	var w warnings
	annotations, spec := kinds.NewPath("metadata").Child("annotations"), kinds.NewPath("spec")
	for _, old := range []struct{ key, message string }{
		{corev1.BetaStorageClassAnnotation, `deprecated since v1.8; use "storageClassName" attribute instead`},
		{mountOptionsAnnotation, `deprecated since v1.31; use "mountOptions" attribute instead`},
	} {
		if _, ok := v.Annotations[old.key]; ok {
			w.add(annotations.Key(old.key), "%s", old.message)
		}
	}
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		w.add(spec.Child("persistentVolumeReclaimPolicy"),
			"The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	if v.Spec.NodeAffinity != nil && v.Spec.NodeAffinity.Required != nil {
		for i, term := range v.Spec.NodeAffinity.Required.NodeSelectorTerms {
			at := spec.Child("nodeAffinity").Child("required").Child("nodeSelectorTerms").Index(i).Child("matchExpressions")
			for j, r := range term.MatchExpressions {
				if message, ok := renamedLabels[r.Key]; ok {
					w.add(at.Index(j).Child("key"), "%s is %s", r.Key, message)
				}
			}
		}
	}
	for _, gone := range []struct {
		field, message string
		set            bool
	}{
		{"cephfs", "deprecated in v1.28, non-functional in v1.31+", v.Spec.CephFS != nil},
		{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", v.Spec.PhotonPersistentDisk != nil},
		{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", v.Spec.ScaleIO != nil},
		{"storageOS", "deprecated in v1.22, non-functional in v1.25+", v.Spec.StorageOS != nil},
		{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", v.Spec.Glusterfs != nil},
		{"rbd", "deprecated in v1.28, non-functional in v1.31+", v.Spec.RBD != nil},
	} {
		if gone.set {
			w.add(spec.Child(gone.field), "%s", gone.message)
		}
	}
	return w
}

func claimWarnings(c *corev1.PersistentVolumeClaim) []string {
	var w warnings
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		w.add(kinds.NewPath("metadata").Child("annotations").Key(corev1.BetaStorageClassAnnotation),
			`deprecated since v1.8; use "storageClassName" attribute instead`)
	}
	at := kinds.NewPath("spec").Child("resources")
	for _, list := range []struct {
		field string
		list  corev1.ResourceList
	}{{"requests", c.Spec.Resources.Requests}, {"limits", c.Spec.Resources.Limits}} {
		if amount := list.list[corev1.ResourceStorage]; amount.MilliValue()%1000 != 0 {
			w.add(at.Child(list.field).Key(string(corev1.ResourceStorage)),
				"fractional byte value %q is invalid, must be an integer", amount.String())
		}
	}
	return w
}

// SelectorWarnings warns of node labels that others took the place of, in a
// selector of nodes.
func SelectorWarnings(s *metav1.LabelSelector, at *kinds.Path) []string {
	if s == nil {
		return nil
	}
	var w warnings
	for i, r := range s.MatchExpressions {
		if message, ok := renamedLabels[r.Key]; ok {
			w.add(at.Child("matchExpressions").Index(i).Child("key"), "%s is %s", r.Key, message)
		}
	}
	for key := range s.MatchLabels {
		if message, ok := renamedLabels[key]; ok {
			w.add(at.Child("matchLabels").Child(key), "%s", message)
		}
	}
	return w
}

// TopologyWarnings is SelectorWarnings for the terms of a storage class.
func TopologyWarnings(terms []corev1.TopologySelectorTerm, at *kinds.Path) []string {
	var w warnings
	for i, term := range terms {
		for j, r := range term.MatchLabelExpressions {
			if message, ok := renamedLabels[r.Key]; ok {
				w.add(at.Index(i).Child("matchLabelExpressions").Index(j).Child("key"), "%s", message)
			}
		}
	}
	return w
}
