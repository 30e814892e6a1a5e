package resource

import (
	"fmt"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A scale has a table of its own, whatever it is the scale of.
func TestScaleTable(t *testing.T) {
	born := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	scale := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: "w", ResourceVersion: "7", CreationTimestamp: metav1.NewTime(born)},
		Spec:       autoscalingv1.ScaleSpec{Replicas: 4}, Status: autoscalingv1.ScaleStatus{Replicas: 3},
	}
	table := scaleTable(scale, form{version: "v1"}, born.Add(5*time.Minute))
	var columns []string
	for _, c := range table.ColumnDefinitions {
		columns = append(columns, c.Name+" "+c.Type)
	}
	if got := fmt.Sprint(columns); got != "[Name string Desired integer Available integer Age string]" {
		t.Errorf("columns: %s", got)
	}
	if got := fmt.Sprint(table.Kind, table.ResourceVersion, table.Rows[0].Cells); got != "Table7[w 4 3 5m]" {
		t.Errorf("table: %s", got)
	}
}
