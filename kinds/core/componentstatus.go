package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// ComponentStatus is the kind that says whether a part of the control plane is
// well. It is never stored: whoever asks has the parts asked.
func ComponentStatus() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("ComponentStatus"),
		Resource: "componentstatuses",
		Singular: "componentstatus",
		Short:    []string{"cs"},
		New:      func() kinds.Object { return &corev1.ComponentStatus{} },
		NewList:  func() runtime.Object { return &corev1.ComponentStatusList{} },
		Verbs:    []string{"get", "list"},
		Warning:  "v1 ComponentStatus is deprecated in v1.19+",
		Table: kinds.Table{
			Columns: []metav1.TableColumnDefinition{
				{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
				{Name: "Status", Type: "string", Description: "Status of the component conditions"},
				{Name: "Message", Type: "string", Description: "Message of the component conditions"},
				{Name: "Error", Type: "string", Description: "Error of the component conditions"},
			},
			Row: componentRow,
		},
	}
}

func componentRow(obj kinds.Object, _ time.Time) []any {
	status, message, failure := "Unknown", "", ""
	for _, c := range obj.(*corev1.ComponentStatus).Conditions {
		if c.Type != corev1.ComponentHealthy {
			continue
		}
		status = "Unhealthy"
		if c.Status == corev1.ConditionTrue {
			status = "Healthy"
		}
		message, failure = c.Message, c.Error
		break
	}
	return []any{obj.GetName(), status, message, failure}
}
