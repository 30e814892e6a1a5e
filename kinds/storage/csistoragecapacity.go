package storage

import (
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// CSIStorageCapacity is the kind by which a driver says how much room it has
// where.
func CSIStorageCapacity() *kinds.Kind {
	return &kinds.Kind{
		GVK:        storagev1.SchemeGroupVersion.WithKind("CSIStorageCapacity"),
		Resource:   "csistoragecapacities",
		Singular:   "csistoragecapacity",
		Namespaced: true,
		Storage:    "csistoragecapacities",
		New:        func() kinds.Object { return &storagev1.CSIStorageCapacity{} },
		NewList:    func() runtime.Object { return &storagev1.CSIStorageCapacityList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			ForbidUnconditionalUpdate: true,
			Validate: kinds.Check(func(c *storagev1.CSIStorageCapacity) field.ErrorList {
				return validateCapacity(c, false)
			}),
			ValidateUpdate: kinds.CheckUpdate(validateCapacityUpdate),
			Warnings: kinds.Warn(func(c, _ *storagev1.CSIStorageCapacity) []string {
				return core.SelectorWarnings(c.NodeTopology, kinds.NewPath("nodeTopology"))
			}),
		},
		Table: kinds.Table{ // which upstream leaves at every kind's
			Columns: kinds.Columns("Name", "Created At|date"),
			Row: kinds.Row(func(c *storagev1.CSIStorageCapacity, _ time.Time) []any {
				return []any{c.Name, c.CreationTimestamp.UTC().Format(time.RFC3339)}
			}),
		},
	}
}

func validateCapacity(c *storagev1.CSIStorageCapacity, laxLabels bool) field.ErrorList {
	var f kinds.Faults
	f.Join(metavalidation.ValidateLabelSelector(c.NodeTopology,
		metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: laxLabels}, kinds.NewPath("nodeTopology").Field()))
	f.Each(kinds.NewPath("storageClassName"), c.StorageClassName, apivalidation.NameIsDNSSubdomain(c.StorageClassName, false))
	if c.Capacity != nil && c.Capacity.Sign() < 0 {
		f.Invalid(kinds.NewPath("capacity"), c.Capacity.String(), apivalidation.IsNegativeErrorMsg)
	}
	return f.List()
}

// validateCapacityUpdate: what was asked of the driver stays; its answer changes.
func validateCapacityUpdate(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
	var f kinds.Faults
	strict := metavalidation.LabelSelectorValidationOptions{}
	lax := len(metavalidation.ValidateLabelSelector(old.NodeTopology, strict, nil)) > 0
	f.Join(validateCapacity(c, lax))
	if !kinds.Same(c.NodeTopology, old.NodeTopology) {
		f.Invalid(kinds.NewPath("nodeTopology"), c.NodeTopology, apivalidation.FieldImmutableErrorMsg)
	}
	if c.StorageClassName != old.StorageClassName {
		f.Invalid(kinds.NewPath("storageClassName"), c.StorageClassName, apivalidation.FieldImmutableErrorMsg)
	}
	return f.List()
}
