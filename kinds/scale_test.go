package kinds_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/apps"
)

func TestScale(t *testing.T) {
	var scale kinds.Subresource
	for _, sub := range apps.Deployment().Subresources {
		if sub.Name == "scale" {
			scale = sub
		}
	}
	d := &appsv1.Deployment{}
	d.Name, d.Generation = "web", 3
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	d.Status.Replicas = 2
	shown := scale.Show(d).(*autoscalingv1.Scale)
	if shown.Name != "web" || shown.Status.Replicas != 2 || shown.Status.Selector != "a=b" {
		t.Errorf("shown %+v", shown)
	}
	if err := scale.Copy(d, shown); err != nil || d.Generation != 3 {
		t.Errorf("writing the same scale: generation %d, %v", d.Generation, err)
	}
	shown.Spec.Replicas = 5
	if err := scale.Copy(d, shown); err != nil || *d.Spec.Replicas != 5 || d.Generation != 4 {
		t.Errorf("replicas %v, generation %d, %v", d.Spec.Replicas, d.Generation, err)
	}
	shown.Spec.Replicas = -1
	if err := scale.Copy(d, shown); err != nil {
		t.Fatal(err)
	}
	errs := scale.ValidateUpdate(d, d)
	if len(errs) != 1 || errs[0].Error() != "spec.replicas: Invalid value: -1: must be greater than or equal to 0" {
		t.Errorf("faults are %v", errs)
	}
	if err := scale.Copy(d, d); err == nil {
		t.Error("a deployment is no scale")
	}
}

func TestColumns(t *testing.T) {
	columns := kinds.Columns("Name", "Nominated Node|wide", "Ready|integer")
	if columns[0].Format != "name" || columns[0].Type != "string" || columns[0].Priority != 0 {
		t.Errorf("name column is %+v", columns[0])
	}
	if columns[1].Name != "Nominated Node" || columns[1].Priority != 1 || columns[2].Type != "integer" {
		t.Errorf("columns are %+v", columns)
	}
}
