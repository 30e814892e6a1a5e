package authz

import (
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Who asks with a selector that cannot be read learns that it was not heard.
func TestUnreadSelectors(t *testing.T) {
	node := metav1.FieldSelectorRequirement{Key: "spec.nodeName", Operator: metav1.FieldSelectorOpIn, Values: []string{"n"}}
	several := metav1.FieldSelectorRequirement{Key: "a", Operator: metav1.FieldSelectorOpIn, Values: []string{"b", "c"}}
	on := metav1.LabelSelectorRequirement{Key: "a", Operator: metav1.LabelSelectorOpExists}
	odd := metav1.LabelSelectorRequirement{Key: "a", Operator: "Sails"}
	for _, c := range []struct {
		field, label string
		fields       []metav1.FieldSelectorRequirement
		labels       []metav1.LabelSelectorRequirement
		want         string
	}{
		{},
		{field: "a=b", label: "a in (b)"},
		{field: "!!", want: "spec.resourceAttributes.fieldSelector ignored"},
		{label: "a in (", want: "spec.resourceAttributes.labelSelector ignored"},
		{fields: []metav1.FieldSelectorRequirement{node}, labels: []metav1.LabelSelectorRequirement{on}},
		{fields: []metav1.FieldSelectorRequirement{node, several}, want: "spec.resourceAttributes.fieldSelector partially ignored"},
		{fields: []metav1.FieldSelectorRequirement{several}, want: "spec.resourceAttributes.fieldSelector ignored"},
		{labels: []metav1.LabelSelectorRequirement{odd}, want: "spec.resourceAttributes.labelSelector ignored"},
		{field: "!!", labels: []metav1.LabelSelectorRequirement{on, odd},
			want: "spec.resourceAttributes.fieldSelector ignored due to parse error; spec.resourceAttributes.labelSelector partially ignored"},
	} {
		asked := &authorizationv1.ResourceAttributes{
			FieldSelector: &authorizationv1.FieldSelectorAttributes{RawSelector: c.field, Requirements: c.fields},
			LabelSelector: &authorizationv1.LabelSelectorAttributes{RawSelector: c.label, Requirements: c.labels},
		}
		want := c.want
		if want != "" {
			want += " due to parse error"
		}
		if got := unread(asked); got != want {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}
