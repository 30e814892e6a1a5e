package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// PersistentVolumeClaim is the kind by which a user asks for storage.
func PersistentVolumeClaim() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("PersistentVolumeClaim"),
		Resource:   "persistentvolumeclaims",
		Singular:   "persistentvolumeclaim",
		Short:      []string{"pvc"},
		Namespaced: true,
		Storage:    "persistentvolumeclaims",
		New:        func() kinds.Object { return &corev1.PersistentVolumeClaim{} },
		NewList:    func() runtime.Object { return &corev1.PersistentVolumeClaimList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			Ratchet:        []string{"spec.selector.matchExpressions.values[]", "spec.dataSource.apiGroup", "spec.dataSourceRef.apiGroup"},
			ReturnsDeleted: true,
			Default:        kinds.Each(DefaultClaim),
			PrepareCreate:  kinds.Each(prepareClaim),
			PrepareUpdate:  kinds.Pair(prepareClaimUpdate),
			Validate:       kinds.Check(validateClaim),
			ValidateUpdate: kinds.CheckUpdate(validateClaimUpdate),
			Warnings:       kinds.Warn(func(c, _ *corev1.PersistentVolumeClaim) []string { return claimWarnings(c) }),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(persistentVolumeClaimTexts(), "Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass",
				"VolumeAttributesClass", "Age", "VolumeMode|wide"),
			Row: kinds.Row(claimRow),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusRules(copyClaimStatus, validateClaimStatusUpdate),
		},
	}
}

// DefaultClaim fills what a client left out of a claim, or of a template for one.
func DefaultClaim(c *corev1.PersistentVolumeClaim) {
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
	defaultClaimSpec(&c.Spec)
}

func defaultClaimSpec(spec *corev1.PersistentVolumeClaimSpec) {
	if spec.VolumeMode == nil {
		mode := corev1.PersistentVolumeFilesystem
		spec.VolumeMode = &mode
	}
	roundResources(spec.Resources.Requests)
	roundResources(spec.Resources.Limits)
}

func prepareClaim(c *corev1.PersistentVolumeClaim) {
	settleDataSources(&c.Spec, &corev1.PersistentVolumeClaimSpec{})
	c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
}

func prepareClaimUpdate(c, old *corev1.PersistentVolumeClaim) {
	settleDataSources(&c.Spec, &old.Spec)
	c.Status = old.Status
}

// copyClaimStatus leaves out a volume's health, which nothing here looks after.
func copyClaimStatus(next, body *corev1.PersistentVolumeClaim) {
	health := next.Status.HealthStatus
	next.Status = body.Status
	if health == nil {
		next.Status.HealthStatus = nil
	}
}

func claimRow(c *corev1.PersistentVolumeClaim, now time.Time) []any {
	capacity, modes := "", ""
	if c.Spec.VolumeName != "" {
		size := c.Status.Capacity[corev1.ResourceStorage]
		capacity, modes = size.String(), accessModes(c.Status.AccessModes)
	}
	class := kinds.Deref(c.Spec.StorageClassName)
	if beta, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = beta
	}
	return []any{c.Name, phaseCell(c, string(c.Status.Phase)), c.Spec.VolumeName, capacity, modes, class,
		unset(c.Spec.VolumeAttributesClassName), kinds.Created(c, now), unset(c.Spec.VolumeMode)}
}
