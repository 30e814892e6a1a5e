package match

import (
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/identity"
)

// VitalWait is how long all webhooks together may keep a vital write waiting, once
// for those that change it and once for those that judge it. Nodes and leaders give
// a renewal of their lease up after ten seconds.
const VitalWait = 2 * time.Second

// nodesGroup is the group of all nodes.
const nodesGroup = "system:nodes"

// Vital says that a write keeps the cluster alive or configures admission itself:
// no rule that cannot be asked may stop it, whatever the rule's failure policy. A
// rule that can be asked may still refuse it. Vital are the heartbeats of nodes,
// their status, and the leases by which the cluster's own components choose their
// leaders (docs/decisions/0009-what-a-rule-that-is-down-may-stop.md).
func (r *Request) Vital() bool {
	t := r.Target
	switch t.Resource.Group {
	case admissionregistrationv1.GroupName:
		return true
	case coordinationv1.GroupName:
		return t.Resource.Resource == "leases" &&
			(t.Namespace == corev1.NamespaceNodeLease || t.Namespace == metav1.NamespaceSystem && r.component())
	case corev1.GroupName:
		return t.Resource.Resource == "nodes" && t.Subresource == "status" && slices.Contains(r.User.Groups, nodesGroup)
	}
	return false
}

// component says that the user is a part of the cluster.
func (r *Request) component() bool {
	if namespace, _, ok := identity.SplitServiceAccount(r.User.Name); ok {
		return namespace == metav1.NamespaceSystem
	}
	return strings.HasPrefix(r.User.Name, "system:") && r.User.Name != identity.Anonymous
}
