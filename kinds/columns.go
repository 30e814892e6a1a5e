package kinds

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// None is what a table shows where there is nothing, Unknown where nobody knows.
const (
	None    = "<none>"
	Unknown = "<unknown>"
	Unset   = "<unset>"
)

// Columns makes column definitions out of names. A name may be followed by
// "|integer", "|boolean" or "|date" (default: string), by "|wide" for a column that
// only -o wide shows, and by "|name" for the format that "Name" has anyhow.
func Columns(names ...string) []metav1.TableColumnDefinition {
	columns := make([]metav1.TableColumnDefinition, 0, len(names))
	for _, spec := range names {
		parts := strings.Split(spec, "|")
		column := metav1.TableColumnDefinition{Name: parts[0], Type: "string", Description: describe(parts[0])}
		for _, option := range parts[1:] {
			switch option {
			case "wide":
				column.Priority = 1
			case "name":
				column.Format = option
			default:
				column.Type = option
			}
		}
		if column.Name == "Name" {
			column.Format = "name"
		}
		columns = append(columns, column)
	}
	return columns
}

// Explained are Columns of which texts say, by their names, what they mean.
func Explained(texts map[string]string, names ...string) []metav1.TableColumnDefinition {
	columns := Columns(names...)
	for i := range columns {
		if text, ok := texts[columns[i].Name]; ok {
			columns[i].Description = text
		}
	}
	return columns
}

// describe explains the columns that many kinds have.
func describe(column string) string {
	switch column {
	case "Name":
		return metav1.ObjectMeta{}.SwaggerDoc()["name"]
	case "Age", "Created At":
		return metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]
	case "Containers":
		return "Names of each container in the template."
	case "Images":
		return "Images referenced by each container in the template."
	}
	return ""
}

// Age is how long ago a thing happened, as kubectl shows it: "5m", "3d2h".
func Age(at metav1.Time, now time.Time) string {
	if at.IsZero() {
		return Unknown
	}
	return duration.HumanDuration(now.Sub(at.Time))
}

// Created is the age of an object.
func Created(obj Object, now time.Time) string { return Age(obj.GetCreationTimestamp(), now) }

// ContainerCells are the names and the images of containers, comma separated:
// the wide columns of everything that has a pod template.
func ContainerCells(containers []corev1.Container) (names, images string) {
	n := make([]string, 0, len(containers))
	i := make([]string, 0, len(containers))
	for _, c := range containers {
		n = append(n, c.Name)
		i = append(i, c.Image)
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

// Ready is "1/3".
func Ready(have, want int32) string { return fmt.Sprintf("%d/%d", have, want) }

// Deref is the value p points to, or its type's zero.
func Deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
