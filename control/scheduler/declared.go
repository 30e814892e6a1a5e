package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/reconcile"
)

// Declaration is the scheduler as an owner of what it writes: see
// reconcile.CheckOwnership.
type Declaration struct{}

// Name implements reconcile.Owner.
func (Declaration) Name() string { return "scheduler" }

// Reads are the kinds that decisions depend on.
func (Declaration) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Pods.GroupVersionResource, client.Nodes.GroupVersionResource,
		client.Namespaces.GroupVersionResource, client.PodDisruptionBudgets.GroupVersionResource,
	}
}

// Writes implements reconcile.Owner: the binding, the reasons for which there is
// none, and the victims of a preemption.
func (Declaration) Writes() []reconcile.Write {
	pods := client.Pods.GroupVersionResource
	return []reconcile.Write{
		{Resource: pods, Part: "spec.nodeName"}, {Resource: pods, Part: "status.nominatedNodeName"},
		{Resource: pods, Part: "status.conditions[" + string(corev1.PodScheduled) + "]"},
		{Resource: pods, Part: "status.conditions[DisruptionTarget, preempted]"}, {Resource: pods, Part: reconcile.Delete},
	}
}
