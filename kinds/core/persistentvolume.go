package core

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// PersistentVolume is the kind for a piece of storage.
func PersistentVolume() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("PersistentVolume"),
		Resource: "persistentvolumes",
		Singular: "persistentvolume",
		Short:    []string{"pv"},
		Storage:  "persistentvolumes",
		New:      func() kinds.Object { return &corev1.PersistentVolume{} },
		NewList:  func() runtime.Object { return &corev1.PersistentVolumeList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			Ratchet:        []string{"spec.nodeAffinity.required.nodeSelectorTerms.matchExpressions.values[]"},
			ReturnsDeleted: true,
			Default:        kinds.Each(defaultPersistentVolume),
			PrepareCreate: kinds.Each(func(v *corev1.PersistentVolume) {
				born := v.CreationTimestamp
				v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: &born}
			}),
			PrepareUpdate:  kinds.Pair(func(v, old *corev1.PersistentVolume) { v.Status = old.Status }),
			Validate:       kinds.Check(validatePersistentVolume),
			ValidateUpdate: kinds.CheckUpdate(validatePersistentVolumeUpdate),
			Warnings:       kinds.Warn(func(v, _ *corev1.PersistentVolume) []string { return volumeWarnings(v) }),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(persistentVolumeTexts(), "Name", "Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim",
				"StorageClass", "VolumeAttributesClass", "Reason", "Age", "VolumeMode|wide"),
			Row: kinds.Row(persistentVolumeRow),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusRules(takeVolumeStatus, nil),
		},
	}
}

func defaultPersistentVolume(v *corev1.PersistentVolume) {
	roundResources(v.Spec.Capacity)
	defaultPersistentSource(&v.Spec.PersistentVolumeSource)
	if v.Status.Phase == "" {
		v.Status.Phase = corev1.VolumePending
	}
	if v.Spec.PersistentVolumeReclaimPolicy == "" {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	if v.Spec.VolumeMode == nil {
		mode := corev1.PersistentVolumeFilesystem
		v.Spec.VolumeMode = &mode
	}
	if h := v.Spec.HostPath; h != nil {
		orDefault(&h.Type, corev1.HostPathUnset)
	}
}

// takeVolumeStatus keeps the time of the last change of phase if the phase has
// not changed. The writer of a new phase says when that was.
func takeVolumeStatus(next, body *corev1.PersistentVolume) {
	before := next.Status
	next.Status = body.Status
	if before.Phase == next.Status.Phase && next.Status.LastPhaseTransitionTime == nil {
		next.Status.LastPhaseTransitionTime = before.LastPhaseTransitionTime
	}
}

func persistentVolumeRow(v *corev1.PersistentVolume, now time.Time) []any {
	claim := ""
	if ref := v.Spec.ClaimRef; ref != nil {
		claim = ref.Namespace + "/" + ref.Name
	}
	size := v.Spec.Capacity[corev1.ResourceStorage]
	class := v.Spec.StorageClassName
	if beta, ok := v.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = beta
	}
	return []any{v.Name, size.String(), accessModes(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy),
		phaseCell(v, string(v.Status.Phase)), claim, class, unset(v.Spec.VolumeAttributesClassName),
		v.Status.Reason, kinds.Created(v, now), unset(v.Spec.VolumeMode)}
}

func phaseCell(obj kinds.Object, phase string) string {
	if obj.GetDeletionTimestamp() != nil {
		return "Terminating"
	}
	return phase
}

func unset[T ~string](p *T) string {
	if p == nil {
		return kinds.Unset
	}
	return string(*p)
}

// accessModes is "RWO,ROX": each mode once, in a fixed order.
func accessModes(modes []corev1.PersistentVolumeAccessMode) string {
	has := map[corev1.PersistentVolumeAccessMode]bool{}
	for _, mode := range modes {
		has[mode] = true
	}
	var short []string
	for _, m := range []struct {
		mode corev1.PersistentVolumeAccessMode
		word string
	}{
		{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"},
		{corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"},
	} {
		if has[m.mode] {
			short = append(short, m.word)
		}
	}
	return strings.Join(short, ",")
}
