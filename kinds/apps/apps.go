// Package apps says what the kinds of the apps group are: the workloads that
// keep pods running.
package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{ControllerRevision(), DaemonSet(), Deployment(), ReplicaSet(), StatefulSet()}
}

func gvk(kind string) schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind(kind) }

// selectorText is a selector in the form that scale subresources carry.
func selectorText(s *metav1.LabelSelector) string {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return "<invalid>"
	}
	return selector.String()
}

func orDefault[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}
