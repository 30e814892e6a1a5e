// Package storagemigration says what the kinds of the storagemigration.k8s.io
// group are.
package storagemigration

import (
	"fmt"
	"strings"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

type migration = storagemigrationv1.StorageVersionMigration

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{StorageVersionMigration()} }

// StorageVersionMigration is the kind that asks for every object of a resource to
// be written again as it is stored today.
func StorageVersionMigration() *kinds.Kind {
	return &kinds.Kind{
		GVK:      storagemigrationv1.SchemeGroupVersion.WithKind("StorageVersionMigration"),
		Resource: "storageversionmigrations",
		Singular: "storageversionmigration",
		Storage:  "storageversionmigrations",
		New:      func() kinds.Object { return &migration{} },
		NewList:  func() runtime.Object { return &storagemigrationv1.StorageVersionMigrationList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:             true,
			PrepareCreate:             kinds.Each(func(m *migration) { m.Status = storagemigrationv1.StorageVersionMigrationStatus{} }),
			PrepareUpdate:             kinds.Pair(func(m, old *migration) { m.Status = old.Status }),
			Validate:                  kinds.Check(validate),
			ValidateUpdate:            kinds.CheckUpdate(validateUpdate),
			ForbidUnconditionalUpdate: true,
		},
		Table: kinds.Table{
			Columns: []metav1.TableColumnDefinition{
				{Name: "Name", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
				{Name: "Resource", Type: "string", Description: "GroupResource to migrate"},
				{Name: "Status", Type: "string", Description: "Status of the migration"},
			},
			Row: kinds.Row(row),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusOnly(func(next, body *migration) { next.Status = body.Status }, validateStatus),
		},
	}
}

func row(m *migration, _ time.Time) []any {
	status := "Unknown"
	for _, c := range m.Status.Conditions {
		if c.Status != metav1.ConditionTrue {
			continue
		}
		switch storagemigrationv1.MigrationConditionType(c.Type) {
		case storagemigrationv1.MigrationRunning, storagemigrationv1.MigrationFailed, storagemigrationv1.MigrationSucceeded:
			status = c.Type
		}
	}
	return []any{m.Name, m.Spec.Resource.String(), status}
}

func validate(m *migration) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("spec").Child("resource")
	r := m.Spec.Resource
	if r.Resource == "" {
		f.Required(at.Child("resource"), "resource is required to be set")
	} else if problems := validation.IsDNS1035Label(r.Resource); len(problems) > 0 {
		f.Invalid(at.Child("resource"), r.Resource, strings.Join(problems, ","))
	}
	if problems := validation.IsDNS1123Subdomain(r.Group); r.Group != "" && len(problems) > 0 {
		f.Invalid(at.Child("group"), r.Group, strings.Join(problems, ","))
	}
	return f.List()
}

func validateUpdate(m, old *migration) field.ErrorList {
	var f kinds.Faults
	f.Join(validate(m))
	f.Immutable(kinds.NewPath("spec"), m.Spec, old.Spec)
	return f.List()
}

// validateStatus: a migration ends once, and remembers where it began.
func validateStatus(m, old *migration) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("status")
	revision, conditions := at.Child("resourceVersion"), at.Child("conditions")
	if rv := m.Status.ResourceVersion; rv != "" {
		if _, err := resourceversion.CompareResourceVersion(rv, rv); err != nil {
			f.Invalid(revision, rv, err.Error())
		}
	}
	f.JoinAt(conditions, metavalidation.ValidateConditions(m.Status.Conditions, kinds.Here))
	if before := old.Status.ResourceVersion; before != "" && before != m.Status.ResourceVersion {
		f.Invalid(revision, m.Status.ResourceVersion, "field is immutable")
	}
	if Is(m, storagemigrationv1.MigrationSucceeded) && Is(m, storagemigrationv1.MigrationFailed) {
		f.Invalid(conditions, m.Status.Conditions, "Both success and failed conditions cannot be true at the same time")
	}
	for _, end := range []struct {
		condition storagemigrationv1.MigrationConditionType
		word      string
	}{{storagemigrationv1.MigrationSucceeded, "Success"}, {storagemigrationv1.MigrationFailed, "Failed"}} {
		if Is(old, end.condition) && !Is(m, end.condition) {
			f.Invalid(conditions, m.Status.Conditions, fmt.Sprintf("%s condition cannot be set to false once it is true", end.word))
		}
	}
	return f.List()
}

// Is says whether a condition of m is true.
func Is(m *migration, condition storagemigrationv1.MigrationConditionType) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(condition))
}
