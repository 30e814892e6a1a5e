package core

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// Upstream shows a path, of which nothing is to be seen, where it means a value.
func TestDataSourcesDisagree(t *testing.T) {
	namespace := "other"
	source := &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "a"}
	for want, ref := range map[string]*corev1.TypedObjectReference{
		"spec: Invalid value: {}: must match dataSourceRef":                                       {Kind: "PersistentVolumeClaim", Name: "b"},
		"spec: Invalid value: {}: may not be specified when dataSourceRef.namespace is specified": {Kind: "PersistentVolumeClaim", Name: "a", Namespace: &namespace},
	} {
		found := ValidateClaimSpec(&corev1.PersistentVolumeClaimSpec{DataSource: source, DataSourceRef: ref}, kinds.NewPath("spec"))
		if !slices.ContainsFunc(found, func(e *field.Error) bool { return e.Error() == want }) {
			t.Errorf("%q is not among %v", want, found)
		}
	}
}
