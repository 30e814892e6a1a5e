package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/target"
)

// nodeRole is the role whose rules hold for every node where nothing narrower does.
const nodeRole = "system:node"

// Reader reads objects as the server itself.
type Reader interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
}

// Nodes lets a node read what its own pods need and nothing else: a stolen node
// key opens the secrets of that node's pods, not of the cluster.
type Nodes struct {
	objects Reader
	rules   []rbacv1.PolicyRule
}

// NewNodes returns the node authorizer; its general rules are those of the
// default role for nodes.
func NewNodes(objects Reader, defaults *Defaults) *Nodes {
	n := &Nodes{objects: objects}
	for _, r := range defaults.ClusterRoles {
		if r.Name == nodeRole {
			n.rules = r.Rules
		}
	}
	return n
}

// Allows decides for nodes and has no opinion on anybody else.
func (n *Nodes) Allows(ctx context.Context, q Attributes) (allowed bool, reason string) {
	node, ok := q.User.Node()
	if !ok {
		return false, ""
	}
	switch q.Group + "/" + q.Resource {
	case "/configmaps":
		return n.readsNamespaced(ctx, node, q)
	case "/secrets":
		allowed, reason := n.readsNamespaced(ctx, node, q)
		return allowed || reason == unrelated(node) && n.opensVolume(ctx, node, q), reason
	case "/serviceaccounts":
		if q.Subresource == "token" {
			q.Subresource = ""
			return n.reads(ctx, node, q, "create")
		}
		return n.reads(ctx, node, q, "get")
	case "/persistentvolumeclaims":
		if q.Subresource == "status" {
			q.Subresource = ""
			return n.reads(ctx, node, q, "update", "patch")
		}
		return n.reads(ctx, node, q, "get")
	case "/persistentvolumes":
		return n.readsVolume(ctx, node, q)
	case "resource.k8s.io/resourceclaims":
		return n.reads(ctx, node, q, "get")
	case "storage.k8s.io/volumeattachments":
		return n.readsAttachment(ctx, node, q)
	case "coordination.k8s.io/leases":
		if q.Namespace != corev1.NamespaceNodeLease {
			return false, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		own := q.Verb == "create" || q.Name == node
		return own && slices.Contains([]string{"get", "create", "update", "patch", "delete"}, q.Verb), "can only access node lease with the same name as the requesting node"
	case "storage.k8s.io/csinodes":
		if q.Subresource != "" { // the status is CSIVolumeHealth's, which is alpha and off
			return false, "cannot authorize CSINode subresources"
		}
		own := q.Verb == "create" || q.Name == node
		return own && slices.Contains([]string{"get", "create", "update", "patch", "delete"}, q.Verb), "can only access CSINode with the same name as the requesting node"
	case "resource.k8s.io/resourceslices":
		return n.slices(ctx, node, q)
	case "certificates.k8s.io/podcertificaterequests":
		return n.podRequests(ctx, node, q)
	case "/nodes":
		return n.nodes(node, q)
	case "/pods":
		switch {
		case q.Subresource != "":
		case q.Verb == "get" && q.Name == "":
			return false, "No Object name found"
		case q.Verb == "get":
			return n.own(ctx, node, q)
		case q.Name != "" && (q.Verb == "list" || q.Verb == "watch") && !selects(q.FieldSelector, "spec.nodeName", node):
			return n.own(ctx, node, q) // one alone, by its name
		case q.Verb == "list" || q.Verb == "watch" || q.Verb == "deletecollection":
			return q.Verb != "deletecollection" && selects(q.FieldSelector, "spec.nodeName", node), "can only list/watch pods with spec.nodeName field selector"
		}
	}
	return slices.ContainsFunc(n.rules, func(r rbacv1.PolicyRule) bool { return allows(&r, &q) }), ""
}

// readsNamespaced allows reading one object, by whatever verb, of a kind that a node may
// watch one at a time.
func (n *Nodes) readsNamespaced(ctx context.Context, node string, q Attributes) (bool, string) {
	switch {
	case q.Verb != "get" && q.Verb != "list" && q.Verb != "watch":
		return false, "can only read resources of this type"
	case q.Subresource != "":
		return false, "cannot read subresource"
	case q.Namespace == "":
		return false, "can only read namespaced object of this type"
	}
	return n.reads(ctx, node, q, q.Verb)
}

// reads allows the verbs on an object that a pod of the node refers to.
func (n *Nodes) reads(ctx context.Context, node string, q Attributes, verbs ...string) (bool, string) {
	if !slices.Contains(verbs, q.Verb) || q.Subresource != "" {
		return false, fmt.Sprintf("can only %s individual resources of this type", strings.Join(verbs, "/"))
	}
	if q.Name == "" || q.Namespace == "" {
		return false, "No Object name found"
	}
	if n.wanted(ctx, node, q.Namespace, func(pod *corev1.Pod) bool { return refers(pod, q.Resource, q.Name) }) {
		return true, ""
	}
	return false, unrelated(node)
}

func unrelated(node string) string {
	return fmt.Sprintf("no relationship found between node '%s' and this object", node)
}

// peeker shows what a cache has, one by one, as the server's own reader can: a list
// would copy all pods of the node for each of its requests.
type peeker interface {
	PeekEach(t target.Target, see func(runtime.Object) (more bool)) (ok bool)
}

// wanted says whether one of the node's pods refers to something, as the cache that the
// node itself reads from has them.
func (n *Nodes) wanted(ctx context.Context, node, namespace string, refers func(*corev1.Pod) bool) (found bool) {
	at := target.Of(corev1.SchemeGroupVersion.WithResource("pods"), namespace)
	n.each(ctx, at, fields.OneTermEqualSelector("spec.nodeName", node).String(), func(obj runtime.Object) (more bool) {
		pod, ok := obj.(*corev1.Pod)
		found = found || ok && pod.Spec.NodeName == node && refers(pod)
		return !found
	})
	return found
}

// each shows the objects that a selector of fields leaves, and may show others: what
// cannot be read is not shown, and so allows nothing.
func (n *Nodes) each(ctx context.Context, at target.Target, selector string, see func(runtime.Object) (more bool)) {
	if p, can := n.objects.(peeker); can && p.PeekEach(at, see) {
		return
	}
	list, err := n.objects.List(ctx, at, metav1.ListOptions{ResourceVersion: "0", FieldSelector: selector})
	if err != nil {
		return
	}
	_ = meta.EachListItem(list, func(obj runtime.Object) error { // the function never fails
		see(obj)
		return nil
	})
}

// own allows reading a pod that runs on the node.
func (n *Nodes) own(ctx context.Context, node string, q Attributes) (bool, string) {
	at := target.Of(corev1.SchemeGroupVersion.WithResource("pods"), q.Namespace).Object(q.Name)
	for _, version := range []string{"0", ""} {
		obj, err := n.objects.Get(ctx, at, metav1.GetOptions{ResourceVersion: version})
		if pod, ok := obj.(*corev1.Pod); err == nil && ok && pod.Spec.NodeName == node {
			return true, ""
		}
	}
	return false, unrelated(node)
}

// readsVolume follows a volume to its claim, and that to the node's pods.
func (n *Nodes) readsVolume(ctx context.Context, node string, q Attributes) (bool, string) {
	if q.Verb != "get" || q.Subresource != "" || q.Name == "" {
		return false, "can only get individual resources of this type"
	}
	obj, err := n.objects.Get(ctx, target.Of(corev1.SchemeGroupVersion.WithResource("persistentvolumes"), "").Object(q.Name), metav1.GetOptions{ResourceVersion: "0"})
	volume, ok := obj.(*corev1.PersistentVolume)
	if err != nil || !ok || volume.Spec.ClaimRef == nil {
		return false, unrelated(node)
	}
	claim := volume.Spec.ClaimRef
	if n.wanted(ctx, node, claim.Namespace, func(pod *corev1.Pod) bool { return refers(pod, "persistentvolumeclaims", claim.Name) }) {
		return true, ""
	}
	return false, unrelated(node)
}

func (n *Nodes) readsAttachment(ctx context.Context, node string, q Attributes) (bool, string) {
	if q.Verb != "get" || q.Subresource != "" || q.Name == "" {
		return false, "can only get individual resources of this type"
	}
	obj, err := n.objects.Get(ctx, target.Of(storagev1.SchemeGroupVersion.WithResource("volumeattachments"), "").Object(q.Name), metav1.GetOptions{ResourceVersion: "0"})
	attachment, ok := obj.(*storagev1.VolumeAttachment)
	if err != nil || !ok || attachment.Spec.NodeName != node {
		return false, unrelated(node)
	}
	return true, ""
}

// refers says whether the pod needs the object. Mirror pods are written by nodes
// themselves and open nothing.
func refers(pod *corev1.Pod, resource, name string) bool {
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return false
	}
	switch resource {
	case "serviceaccounts":
		return pod.Spec.ServiceAccountName == name
	case "secrets":
		return refersToSecret(pod, name)
	case "configmaps":
		return refersToConfigMap(pod, name)
	case "persistentvolumeclaims":
		return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == name ||
				v.Ephemeral != nil && pod.Name+"-"+v.Name == name
		})
	case "resourceclaims":
		if e := pod.Status.ExtendedResourceClaimStatus; e != nil && e.ResourceClaimName == name {
			return true // made by the scheduler for devices that are asked for as resources
		}
		return slices.ContainsFunc(pod.Spec.ResourceClaims, func(c corev1.PodResourceClaim) bool {
			return c.ResourceClaimName != nil && *c.ResourceClaimName == name
		}) || slices.ContainsFunc(pod.Status.ResourceClaimStatuses, func(c corev1.PodResourceClaimStatus) bool {
			return c.ResourceClaimName != nil && *c.ResourceClaimName == name
		})
	}
	return false
}

func refersToSecret(pod *corev1.Pod, name string) bool {
	if slices.ContainsFunc(pod.Spec.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return r.Name == name }) {
		return true
	}
	return inVolumes(pod, func(v *corev1.VolumeSource) bool {
		return v.Secret != nil && v.Secret.SecretName == name ||
			v.CSI != nil && v.CSI.NodePublishSecretRef != nil && v.CSI.NodePublishSecretRef.Name == name ||
			v.ISCSI != nil && v.ISCSI.SecretRef != nil && v.ISCSI.SecretRef.Name == name ||
			v.RBD != nil && v.RBD.SecretRef != nil && v.RBD.SecretRef.Name == name ||
			v.CephFS != nil && v.CephFS.SecretRef != nil && v.CephFS.SecretRef.Name == name ||
			v.FlexVolume != nil && v.FlexVolume.SecretRef != nil && v.FlexVolume.SecretRef.Name == name ||
			v.AzureFile != nil && v.AzureFile.SecretName == name
	}, func(p *corev1.VolumeProjection) bool {
		return p.Secret != nil && p.Secret.Name == name
	}) || inEnv(pod, func(s *corev1.EnvVarSource) bool {
		return s.SecretKeyRef != nil && s.SecretKeyRef.Name == name
	}, func(f *corev1.EnvFromSource) bool { return f.SecretRef != nil && f.SecretRef.Name == name })
}

func refersToConfigMap(pod *corev1.Pod, name string) bool {
	return inVolumes(pod, func(v *corev1.VolumeSource) bool {
		return v.ConfigMap != nil && v.ConfigMap.Name == name
	}, func(p *corev1.VolumeProjection) bool {
		return p.ConfigMap != nil && p.ConfigMap.Name == name
	}) || inEnv(pod, func(s *corev1.EnvVarSource) bool {
		return s.ConfigMapKeyRef != nil && s.ConfigMapKeyRef.Name == name
	}, func(f *corev1.EnvFromSource) bool { return f.ConfigMapRef != nil && f.ConfigMapRef.Name == name })
}

func inVolumes(pod *corev1.Pod, volume func(*corev1.VolumeSource) bool, part func(*corev1.VolumeProjection) bool) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i].VolumeSource
		if volume(v) {
			return true
		}
		if v.Projected == nil {
			continue
		}
		for j := range v.Projected.Sources {
			if part(&v.Projected.Sources[j]) {
				return true
			}
		}
	}
	return false
}

func inEnv(pod *corev1.Pod, value func(*corev1.EnvVarSource) bool, all func(*corev1.EnvFromSource) bool) bool {
	see := func(env []corev1.EnvVar, from []corev1.EnvFromSource) bool {
		return slices.ContainsFunc(env, func(e corev1.EnvVar) bool { return e.ValueFrom != nil && value(e.ValueFrom) }) ||
			slices.ContainsFunc(from, func(f corev1.EnvFromSource) bool { return all(&f) })
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if see(c.Env, c.EnvFrom) {
			return true
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if see(c.Env, c.EnvFrom) {
			return true
		}
	}
	return false
}
