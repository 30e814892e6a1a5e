package admit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/kinds"
)

// nodeLabels are the labels below kubernetes.io and k8s.io that a node may set
// on itself; nodeLabelDomains the domains in which it may set any.
var (
	nodeLabels = []string{
		corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
		corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable, corev1.LabelArchStable,
		"beta.kubernetes.io/os", "beta.kubernetes.io/arch",
	}
	nodeLabelDomains = []string{corev1.LabelNamespaceSuffixKubelet, corev1.LabelNamespaceSuffixNode}
)

// nodeRestriction keeps a node to itself: its own Node, lease and pods.
type nodeRestriction struct {
	Changing
	objects Reader
	authz   *authz.Authorizer
}

func (r nodeRestriction) Admit(ctx context.Context, a *resource.Attributes) error {
	node, ok := a.User.Node()
	if !ok && a.User.Name == identity.NodePrefix && a.User.In(identity.Nodes) {
		return fmt.Errorf("could not determine node from user %q", a.User.Name)
	}
	if !ok {
		return nil
	}
	switch {
	case is(a, "", "pods"):
		return r.pods(ctx, node, a)
	case is(a, "", "nodes"):
		return ownNode(node, a)
	case is(a, "", "persistentvolumeclaims"):
		return claimStatus(node, a)
	case is(a, "", "serviceaccounts"):
		return r.token(ctx, node, a)
	case is(a, "coordination.k8s.io", "leases"):
		if a.Target.Namespace != corev1.NamespaceNodeLease {
			return fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		return named(node, a, "node lease")
	case is(a, "storage.k8s.io", "csinodes"):
		return named(node, a, "CSINode")
	case is(a, "resource.k8s.io", "resourceslices"):
		return ownSlice(node, a)
	}
	return nil
}

// ownSlice: a node speaks of its own devices only.
func ownSlice(node string, a *resource.Attributes) error {
	obj, verb := a.Object, "create"
	switch a.Operation {
	case resource.OpCreate:
	case resource.OpDelete:
		obj, verb = a.Old, "delete"
	default:
		return nil // the name of the node never changes
	}
	slice, ok := obj.(*resourcev1.ResourceSlice)
	if !ok {
		return fmt.Errorf("unexpected type %T", obj)
	}
	if slice.Spec.NodeName == nil || *slice.Spec.NodeName != node {
		return fmt.Errorf("can only %s ResourceSlice with the same NodeName as the requesting node", verb)
	}
	return nil
}

func named(node string, a *resource.Attributes, what string) error {
	if a.Target.Name != node {
		return fmt.Errorf("can only access %s with the same name as the requesting node", what)
	}
	return nil
}

func (r nodeRestriction) pods(ctx context.Context, node string, a *resource.Attributes) error {
	switch sub := a.Target.Subresource; {
	case sub == "status" && a.Operation == resource.OpUpdate:
		return podStatus(node, a)
	case sub == "eviction" && a.Operation == resource.OpCreate:
		return r.onNode(ctx, node, a, fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", node))
	case sub == "" && a.Operation == resource.OpDelete:
		return r.onNode(ctx, node, a, fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", node))
	case sub == "" && a.Operation == resource.OpCreate:
		return r.mirrorPod(ctx, node, a)
	case sub == "":
		return fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", a.Operation, node)
	default:
		return fmt.Errorf("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", sub)
	}
}

// onNode checks where the pod of the request runs; otherwise is what a stranger is told.
func (r nodeRestriction) onNode(ctx context.Context, node string, a *resource.Attributes, otherwise error) error {
	obj, err := cached(ctx, r.objects, core("pods", a.Target.Namespace, a.Target.Name))
	if err != nil {
		return asListed(err, "pod", a.Target.Name)
	}
	if pod, ok := obj.(*corev1.Pod); !ok || pod.Spec.NodeName != node {
		return otherwise
	}
	return nil
}

func podStatus(node string, a *resource.Attributes) error {
	old, ok1 := a.Old.(*corev1.Pod)
	pod, ok2 := a.Object.(*corev1.Pod)
	switch {
	case !ok1 || !ok2:
		return fmt.Errorf("unexpected type %T", a.Object)
	case old.Spec.NodeName != node:
		return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", node)
	case !maps.Equal(old.Labels, pod.Labels):
		return fmt.Errorf("node %q cannot update labels through pod status", node)
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses):
		return fmt.Errorf("node %q cannot update resource claim statues", node)
	case !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus):
		return fmt.Errorf("node %q cannot update extended resource claim status", node)
	case !equality.Semantic.DeepEqual(old.Status.NodeAllocatableResourceClaimStatuses, pod.Status.NodeAllocatableResourceClaimStatuses):
		return fmt.Errorf("node %q cannot update node allocatable resource claim statuses", node)
	}
	return nil
}

// mirrorPod: a node may show what it runs by itself, and nothing that would open
// the cluster's objects to it.
func (r nodeRestriction) mirrorPod(ctx context.Context, node string, a *resource.Attributes) error {
	pod, ok := newPod(a)
	if !ok || !mirror(pod) {
		return fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return fmt.Errorf("node %q can only create pods with spec.nodeName set to itself", node)
	}
	if len(pod.OwnerReferences) == 0 {
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	}
	if len(pod.OwnerReferences) > 1 {
		return fmt.Errorf("node %q can only create pods with a single owner reference set to itself", node)
	}
	if err := r.ownedBy(ctx, node, pod.OwnerReferences[0]); err != nil {
		return err
	}
	if what := reaches(pod); what != "" {
		return fmt.Errorf("node %q can not create pods that reference %s", node, what)
	}
	return nil
}

func (r nodeRestriction) ownedBy(ctx context.Context, node string, owner metav1.OwnerReference) error {
	if owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != node {
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	}
	if owner.Controller == nil || !*owner.Controller {
		return fmt.Errorf("node %q can only create pods with a controller owner reference set to itself", node)
	}
	if owner.BlockOwnerDeletion != nil && *owner.BlockOwnerDeletion {
		return fmt.Errorf("node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	obj, err := cached(ctx, r.objects, core("nodes", "", node))
	if err != nil {
		return asListed(err, "node", node)
	}
	have, ok := obj.(*corev1.Node)
	if !ok {
		return errors.New("not a node")
	}
	if owner.UID != have.UID {
		return fmt.Errorf("node %s UID mismatch: expected %s got %s", node, owner.UID, have.UID)
	}
	return nil
}

func ownNode(node string, a *resource.Attributes) error {
	if a.Target.Name != node {
		return fmt.Errorf("node %q is not allowed to modify node %q", node, a.Target.Name)
	}
	now, ok := a.Object.(*corev1.Node)
	if !ok {
		return nil // a delete of itself
	}
	old, source := &corev1.Node{}, now.Spec.ConfigSource //nolint:staticcheck // nobody serves it, and nobody may try
	if a.Operation == resource.OpCreate && source != nil {
		return fmt.Errorf("node %q is not allowed to create pods with a non-nil configSource", node)
	}
	if a.Operation == resource.OpUpdate {
		if was, ok := a.Old.(*corev1.Node); ok {
			old = was
		}
		if source != nil && !equality.Semantic.DeepEqual(source, old.Spec.ConfigSource) { //nolint:staticcheck // as above
			return fmt.Errorf("node %q is not allowed to update configSource to a new non-nil configSource", node)
		}
		if !equality.Semantic.DeepEqual(now.Spec.Taints, old.Spec.Taints) {
			return fmt.Errorf("node %q is not allowed to modify taints", node)
		}
		if !equality.Semantic.DeepEqual(now.OwnerReferences, old.OwnerReferences) {
			return fmt.Errorf("node %q is not allowed to modify ownerReferences", node)
		}
	}
	if forbidden := forbiddenLabels(now.Labels, old.Labels); len(forbidden) > 0 {
		if a.Operation == resource.OpUpdate {
			return fmt.Errorf("is not allowed to modify labels: %s", strings.Join(forbidden, ", "))
		}
		return fmt.Errorf("node %q is not allowed to set the following labels: %s", node, strings.Join(forbidden, ", "))
	}
	return nil
}

// forbiddenLabels are those changed that only the cluster's people may change:
// they decide where pods land.
func forbiddenLabels(now, was map[string]string) (forbidden []string) {
	changed := map[string]bool{}
	for key, value := range now {
		if old, ok := was[key]; !ok || old != value {
			changed[key] = true
		}
	}
	for key := range was {
		if _, ok := now[key]; !ok {
			changed[key] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(changed)) {
		domain, _, prefixed := strings.Cut(key, "/")
		if !prefixed {
			continue
		}
		reserved := below(domain, "kubernetes.io") || below(domain, "k8s.io")
		own := slices.Contains(nodeLabels, key) || slices.ContainsFunc(nodeLabelDomains, func(d string) bool { return below(domain, d) })
		if below(domain, corev1.LabelNamespaceNodeRestriction) || reserved && !own {
			forbidden = append(forbidden, key)
		}
	}
	return forbidden
}

func below(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}

// claimStatus: a node reports how large a volume has become.
func claimStatus(node string, a *resource.Attributes) error {
	old, ok1 := a.Old.(*corev1.PersistentVolumeClaim)
	now, ok2 := a.Object.(*corev1.PersistentVolumeClaim)
	if a.Target.Subresource != "status" || a.Operation != resource.OpUpdate || !ok1 || !ok2 {
		return errors.New("may only update PVC status")
	}
	strip := func(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
		c = c.DeepCopy()
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions = nil, nil
		c.Status.AllocatedResourceStatuses, c.Status.AllocatedResources = nil, nil
		return c
	}
	if was, is := strip(old), strip(now); !equality.Semantic.DeepEqual(was, is) {
		return fmt.Errorf("node %q is not allowed to update fields other than status.quantity and status.conditions: %v", node, kinds.Diff(was, is))
	}
	return nil
}

// token: only for a pod that runs on the node, and for whom it wants one.
func (r nodeRestriction) token(ctx context.Context, node string, a *resource.Attributes) error {
	if a.Operation != resource.OpCreate || a.Target.Subresource != "token" {
		return nil
	}
	body, ok := a.Object.(*authenticationv1.TokenRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.Object)
	}
	ref := body.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return errors.New("node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return errors.New("node requested token with a pod binding without a uid")
	}
	obj, err := cached(ctx, r.objects, core("pods", a.Target.Namespace, ref.Name))
	if err != nil {
		return asListed(err, "pod", ref.Name)
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.UID != ref.UID {
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	}
	if pod.Spec.NodeName != node {
		return errors.New("node requested token bound to a pod scheduled on a different node")
	}
	return r.audience(ctx, a, body.Spec.Audiences, pod)
}
