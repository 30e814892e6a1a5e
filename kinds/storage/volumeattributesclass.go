package storage

import (
	"maps"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// VolumeAttributesClass is the kind that names what a volume can be changed to
// while it is in use.
func VolumeAttributesClass() *kinds.Kind {
	return &kinds.Kind{
		GVK:      storagev1.SchemeGroupVersion.WithKind("VolumeAttributesClass"),
		Resource: "volumeattributesclasses",
		Singular: "volumeattributesclass",
		Short:    []string{"vac"},
		Storage:  "volumeattributesclasses",
		New:      func() kinds.Object { return &storagev1.VolumeAttributesClass{} },
		NewList:  func() runtime.Object { return &storagev1.VolumeAttributesClassList{} },
		Strategy: kinds.Strategy{
			ReturnsDeleted: true,
			Validate:       kinds.Check(validateAttributesClass),
			ValidateUpdate: kinds.CheckUpdate(validateAttributesClassUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(volumeAttributesClassTexts(), "Name", "DriverName", "Age"),
			Row: kinds.Row(func(c *storagev1.VolumeAttributesClass, now time.Time) []any {
				return []any{c.Name, c.DriverName, kinds.Created(c, now)}
			}),
		},
	}
}

func validateAttributesClass(c *storagev1.VolumeAttributesClass) field.ErrorList {
	var f kinds.Faults
	driver := kinds.NewPath("driverName")
	if f.NonEmpty(driver, c.DriverName) {
		f.Each(driver, strings.ToLower(c.DriverName), validation.IsQualifiedName(strings.ToLower(c.DriverName)))
	}
	parameters := kinds.NewPath("parameters")
	checkParameters(&f, c.Parameters, parameters)
	if len(c.Parameters) == 0 {
		f.Required(parameters, "must contain at least one key/value pair")
	}
	return f.List()
}

// validateAttributesClassUpdate: volumes were changed to what the class said.
func validateAttributesClassUpdate(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
	var f kinds.Faults
	if c.DriverName != old.DriverName {
		f.Forbidden(kinds.NewPath("driverName"), "updates to driverName are forbidden.")
	}
	if !maps.Equal(c.Parameters, old.Parameters) {
		f.Forbidden(kinds.NewPath("parameters"), "updates to parameters are forbidden.")
	}
	f.Join(validateAttributesClass(c))
	return f.List()
}
