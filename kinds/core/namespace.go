package core

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Namespace is the kind that keeps names apart.
func Namespace() *kinds.Kind {
	return &kinds.Kind{
		GVK:      gvk("Namespace"),
		Resource: "namespaces",
		Singular: "namespace",
		Short:    []string{"ns"},
		Storage:  "namespaces",
		Verbs:    []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		New:      func() kinds.Object { return &corev1.Namespace{} },
		NewList:  func() runtime.Object { return &corev1.NamespaceList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			ReturnsDeleted: true,
			DatedOnly:      true,
			Default:        kinds.Each(defaultNamespace),
			PrepareCreate:  kinds.Each(prepareNamespace),
			PrepareUpdate:  kinds.Pair(prepareNamespaceUpdate),
			Validate:       kinds.Check(validateNamespace),
			ValidateUpdate: kinds.CheckUpdate(validateNamespaceUpdate),
			ValidateName:   apivalidation.ValidateNamespaceName,
			Deleting:       kinds.Each(func(n *corev1.Namespace) { n.Status.Phase = corev1.NamespaceTerminating }),
			Holds:          func(obj kinds.Object) bool { return len(obj.(*corev1.Namespace).Spec.Finalizers) > 0 },
		},
		Table: kinds.Table{
			Columns: kinds.Explained(namespaceTexts(), "Name", "Status", "Age"),
			Row: kinds.Row(func(n *corev1.Namespace, now time.Time) []any {
				return []any{n.Name, string(n.Status.Phase), kinds.Created(n, now)}
			}),
		},
		FieldLabels: []string{"status.phase"},
		Fields: kinds.Fields(func(n *corev1.Namespace) fields.Set {
			return fields.Set{"status.phase": string(n.Status.Phase)}
		}),
		Subresources: []kinds.Subresource{
			kinds.StatusRules(
				func(next, body *corev1.Namespace) { next.Status = body.Status },
				validateNamespaceStatus,
			),
			namespaceFinalize(),
		},
	}
}

// namespaceFinalize is the part by which the namespace controller takes itself
// off spec.finalizers.
func namespaceFinalize() kinds.Subresource {
	sub := kinds.StatusRules(func(next, body *corev1.Namespace) { next.Spec.Finalizers = body.Spec.Finalizers }, validateNamespaceFinalize)
	sub.Name, sub.Verbs, sub.Reset = "finalize", []string{"update"}, []string{"status"}
	return sub
}

// defaultNamespace gives a namespace the label by which policies select it.
func defaultNamespace(n *corev1.Namespace) {
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
	nameLabel(n)
}

// nameLabel writes the label, once there is a name.
func nameLabel(n *corev1.Namespace) {
	if n.Name == "" {
		return
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

// prepareNamespace makes sure that the namespace's contents go before it does.
func prepareNamespace(n *corev1.Namespace) {
	nameLabel(n) // the name may be one that was just made of a prefix
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	for _, finalizer := range n.Spec.Finalizers {
		if finalizer == corev1.FinalizerKubernetes {
			return
		}
	}
	n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
}

func prepareNamespaceUpdate(n, old *corev1.Namespace) {
	n.Spec.Finalizers = slices.Clone(old.Spec.Finalizers)
	n.Status = old.Status
}
