package resource

import (
	"slices"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// plainColumns show kinds that define no columns, as upstream does.
var plainColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name", Description: "Name must be unique within a namespace."},
	{Name: "Created At", Type: "date", Description: "CreationTimestamp is a timestamp representing the server time when this object was created."},
}

func metaVersion(version string) schema.GroupVersion {
	return schema.GroupVersion{Group: metav1.GroupName, Version: version}
}

// table shows objects as kubectl get does.
func (c *collection) table(objects []kinds.Object, f form, now time.Time) *metav1.Table {
	if order := c.kind.Table.Order; order != nil {
		objects = slices.SortedStableFunc(slices.Values(objects), order)
	}
	return tableOf(c.columns(), objects, f, func(obj kinds.Object) []any { return c.cells(obj, now) })
}

func tableOf(columns []metav1.TableColumnDefinition, objects []kinds.Object, f form, cells func(kinds.Object) []any) *metav1.Table {
	t := &metav1.Table{ColumnDefinitions: columns, Rows: make([]metav1.TableRow, 0, len(objects))}
	t.SetGroupVersionKind(metaVersion(f.version).WithKind("Table"))
	for _, obj := range objects {
		t.Rows = append(t.Rows, metav1.TableRow{Cells: cells(obj), Object: rowObject(obj, f)})
	}
	return t
}

// scaleTable shows the scale of an object, which is a kind of its own.
func scaleTable(scale *autoscalingv1.Scale, f form, now time.Time) *metav1.Table {
	columns := kinds.Columns("Name", "Desired|integer", "Available|integer", "Age")
	t := tableOf(columns, []kinds.Object{scale}, f, func(kinds.Object) []any {
		return []any{scale.Name, int64(scale.Spec.Replicas), int64(scale.Status.Replicas), kinds.Age(scale.CreationTimestamp, now)}
	})
	t.ResourceVersion = scale.ResourceVersion
	for i := range t.ColumnDefinitions {
		t.ColumnDefinitions[i].Format = "" // as of upstream's custom tables, of which this is one
	}
	return t
}

// ownTable says that the kind has columns of its own.
func (c *collection) ownTable() bool {
	return len(c.kind.Table.Columns) > 0 && c.kind.Table.Row != nil
}

func (c *collection) columns() []metav1.TableColumnDefinition {
	if c.ownTable() {
		return c.kind.Table.Columns
	}
	return plainColumns
}

// cells are an object's row.
func (c *collection) cells(obj kinds.Object, now time.Time) []any {
	if c.ownTable() {
		return c.kind.Table.Row(obj, now)
	}
	return []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format(time.RFC3339)}
}

// rowObject is what a row carries of its object.
func rowObject(obj kinds.Object, f form) runtime.RawExtension {
	switch f.include {
	case metav1.IncludeNone:
		return runtime.RawExtension{}
	case metav1.IncludeObject:
		return runtime.RawExtension{Object: obj}
	}
	return runtime.RawExtension{Object: partial(obj, f.version)}
}

// partial is an object's metadata alone.
func partial(obj kinds.Object, version string) *metav1.PartialObjectMetadata {
	p := meta.AsPartialObjectMetadata(obj)
	p.SetGroupVersionKind(metaVersion(version).WithKind("PartialObjectMetadata"))
	return p
}
