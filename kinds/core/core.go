// Package core says what the kinds of the core group ("v1") are: pods, nodes,
// services, namespaces and the rest. The rules for pod templates live here too,
// for the workload groups to share.
package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind {
	return []*kinds.Kind{
		Binding(),
		ComponentStatus(),
		ConfigMap(),
		Endpoints(),
		Event(),
		LimitRange(),
		Namespace(),
		Node(),
		PersistentVolume(),
		PersistentVolumeClaim(),
		Pod(),
		PodTemplate(),
		ReplicationController(),
		ResourceQuota(),
		Secret(),
		Service(),
		ServiceAccount(),
	}
}

func gvk(kind string) schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind(kind) }
