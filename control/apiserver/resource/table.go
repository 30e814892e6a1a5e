package resource

import (
	"time"

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
	t := &metav1.Table{ColumnDefinitions: c.columns(), Rows: make([]metav1.TableRow, 0, len(objects))}
	t.SetGroupVersionKind(metaVersion(f.version).WithKind("Table"))
	for _, obj := range objects {
		t.Rows = append(t.Rows, metav1.TableRow{Cells: c.cells(obj, now), Object: rowObject(obj, f)})
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
