package typed

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

func TestListOf(t *testing.T) {
	for _, c := range []struct {
		owner reflect.Type
		field string
		want  string
	}{
		{reflect.TypeFor[corev1.PodStatus](), "containerStatuses", "atomic"},
		{reflect.TypeFor[corev1.PodStatus](), "podIPs", "associative ip"},
		{reflect.TypeFor[corev1.PodStatus](), "phase", ""},
		{reflect.TypeFor[corev1.PodStatus](), "nonesuch", ""},
		{reflect.TypeFor[corev1.PodSpec](), "containers", "associative name"},
		{reflect.TypeFor[corev1.NodeStatus](), "images", "atomic"},
		{reflect.TypeFor[discoveryv1.EndpointSlice](), "endpoints", "atomic"},
		{reflect.TypeFor[metav1.ObjectMeta](), "finalizers", "associative"},
		{reflect.TypeFor[metav1.ObjectMeta](), "ownerReferences", "associative uid"},
		{reflect.TypeFor[corev1.ServiceSpec](), "ports", "associative port protocol"},
		{reflect.TypeFor[corev1.VolumeSource](), "configMap", ""},
		{reflect.TypeFor[string](), "length", ""},
	} {
		if got := told(ListOf(c.owner, c.field)); got != c.want {
			t.Errorf("%s of %s: %q, want %q", c.field, c.owner, got, c.want)
		}
	}
}

func told(l *schema.List) string {
	if l == nil {
		return ""
	}
	return strings.Join(append([]string{string(l.ElementRelationship)}, l.Keys...), " ")
}
