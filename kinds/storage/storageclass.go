// Package storage says what the kinds of the storage.k8s.io group are.
package storage

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{StorageClass(), CSIDriver(), CSINode(), CSIStorageCapacity(), VolumeAttachment(), VolumeAttributesClass()}
}

// StorageClass is the kind that names a way of making volumes.
func StorageClass() *kinds.Kind {
	return &kinds.Kind{
		GVK:      storagev1.SchemeGroupVersion.WithKind("StorageClass"),
		Resource: "storageclasses",
		Singular: "storageclass",
		Short:    []string{"sc"},
		Storage:  "storageclasses",
		New:      func() kinds.Object { return &storagev1.StorageClass{} },
		NewList:  func() runtime.Object { return &storagev1.StorageClassList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			ReturnsDeleted: true,
			Default:        kinds.Each(defaultStorageClass),
			Validate:       kinds.Check(validateStorageClass),
			ValidateUpdate: kinds.CheckUpdate(validateStorageClassUpdate),
			Warnings: kinds.Warn(func(c, _ *storagev1.StorageClass) []string {
				return core.TopologyWarnings(c.AllowedTopologies, kinds.NewPath("allowedTopologies"))
			}),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(storageClassTexts(), "Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"),
			Row:     kinds.Row(storageClassRow),
		},
	}
}

func defaultStorageClass(c *storagev1.StorageClass) {
	if c.ReclaimPolicy == nil {
		policy := corev1.PersistentVolumeReclaimDelete
		c.ReclaimPolicy = &policy
	}
	if c.VolumeBindingMode == nil {
		mode := storagev1.VolumeBindingImmediate
		c.VolumeBindingMode = &mode
	}
}

// storageClassRow marks a default class by its annotation; which of several
// such classes wins is not for a table to say.
func storageClassRow(c *storagev1.StorageClass, now time.Time) []any {
	name := c.Name
	if c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true" ||
		c.Annotations["storageclass.beta.kubernetes.io/is-default-class"] == "true" {
		name += " (default)"
	}
	return []any{name, c.Provisioner, string(kinds.Deref(c.ReclaimPolicy)), string(kinds.Deref(c.VolumeBindingMode)),
		kinds.Deref(c.AllowVolumeExpansion), kinds.Created(c, now)}
}
