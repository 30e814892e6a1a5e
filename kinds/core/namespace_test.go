package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The label with the name is there for names that were sent, and for those that the
// server has made of a prefix by the time a namespace is prepared.
func TestNamespaceHasItsNameAsLabel(t *testing.T) {
	k := Namespace()
	for _, generated := range []bool{false, true} {
		n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
		if generated {
			n.Name, n.GenerateName = "", "a-"
		}
		k.Strategy.Default(n)
		if n.Name == "" && n.Labels != nil {
			t.Errorf("labels before there is a name: %v", n.Labels)
		}
		n.Name = "a"
		k.Strategy.PrepareCreate(n)
		if n.Labels[corev1.LabelMetadataName] != "a" {
			t.Errorf("generated %v: labels %v", generated, n.Labels)
		}
	}
}
