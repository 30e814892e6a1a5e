package crd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/util/jsonpath"

	"github.com/sampan-dev/sampan/kinds"
)

// column is one of a table's columns beyond the name.
type column struct {
	kind string
	path *jsonpath.JSONPath
}

// table shows the columns that the version defines, or the age. A column whose
// path cannot be read ends the table: upstream shows those before it.
func (v *version) table() kinds.Table {
	docs := metav1.ObjectMeta{}.SwaggerDoc()
	defined := v.spec.AdditionalPrinterColumns
	if len(defined) == 0 {
		defined = []apiextensionsv1.CustomResourceColumnDefinition{
			{Name: "Age", Type: "date", Description: docs["creationTimestamp"], JSONPath: ".metadata.creationTimestamp"}}
	}
	headers := []metav1.TableColumnDefinition{{Name: "Name", Type: "string", Format: "name", Description: docs["name"]}}
	var columns []column
	for _, c := range defined {
		path := jsonpath.New(c.Name)
		if path.Parse("{"+c.JSONPath+"}") != nil {
			break
		}
		path.AllowMissingKeys(true)
		description := c.Description
		if description == "" {
			description = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		columns = append(columns, column{c.Type, path})
		headers = append(headers, metav1.TableColumnDefinition{
			Name: c.Name, Type: c.Type, Format: c.Format, Description: description, Priority: c.Priority})
	}
	return kinds.Table{Columns: headers, Row: func(obj kinds.Object, now time.Time) []any {
		cells := []any{obj.GetName()}
		for _, c := range columns {
			cells = append(cells, c.cell(content(obj), now))
		}
		return cells
	}}
}

// cell is what a column shows of an object; nil for nothing, or for a value that
// is not of the column's type.
func (c column) cell(tree map[string]any, now time.Time) any {
	found, err := find(c.path, tree)
	if err != nil || len(found) == 0 || len(found[0]) == 0 {
		return nil
	}
	value := found[0][0].Interface()
	if c.kind == "string" {
		var text bytes.Buffer
		if printTo(c.path, &text, value) != nil {
			return nil
		}
		return text.String()
	}
	return typedCell(c.kind, value, now)
}

// find is FindResults on a copy of the parsed path: a JSONPath remembers where it is.
func find(path *jsonpath.JSONPath, tree map[string]any) ([][]reflect.Value, error) {
	own := *path
	return own.FindResults(tree)
}

func printTo(path *jsonpath.JSONPath, to *bytes.Buffer, value any) error {
	own := *path
	return own.PrintResults(to, []reflect.Value{reflect.ValueOf(value)})
}

func typedCell(kind string, value any, now time.Time) any {
	switch kind {
	case "integer":
		switch n := value.(type) {
		case int64:
			return n
		case float64:
			return int64(n)
		case json.Number:
			if whole, err := n.Int64(); err == nil {
				return whole
			}
		}
	case "number":
		switch n := value.(type) {
		case int64:
			return float64(n)
		case float64:
			return n
		case json.Number:
			if f, err := n.Float64(); err == nil {
				return f
			}
		}
	case "boolean":
		if b, ok := value.(bool); ok {
			return b
		}
	case "date":
		text, ok := value.(string)
		if !ok {
			return nil
		}
		var at metav1.Time
		if at.UnmarshalQueryParameter(text) != nil {
			return "<invalid>"
		}
		return kinds.Age(at, now)
	}
	return nil
}

// selectable are the fields by which lists and watches may choose. The labels are
// the paths without their leading dot.
func (v *version) selectable() (func(kinds.Object) fields.Set, []string) {
	var labels []string
	paths := map[string]*jsonpath.JSONPath{}
	for _, f := range v.spec.SelectableFields {
		path := jsonpath.New("selectableField")
		path.AllowMissingKeys(true)
		if path.Parse("{"+f.JSONPath+"}") != nil {
			continue
		}
		label := strings.TrimPrefix(f.JSONPath, ".")
		labels = append(labels, label)
		paths[label] = path
	}
	return func(obj kinds.Object) fields.Set {
		set := fields.Set{}
		for label, path := range paths {
			set[label] = selected(path, content(obj))
		}
		return set
	}, labels
}

// selected is the one value at a path as text, "" for none.
func selected(path *jsonpath.JSONPath, tree map[string]any) string {
	found, err := find(path, tree)
	if err != nil || len(found) != 1 || len(found[0]) != 1 {
		return ""
	}
	value := found[0][0].Interface()
	if value == nil {
		return ""
	}
	return fmt.Sprint(value)
}
