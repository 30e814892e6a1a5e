package authz

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/target"
)

// opensVolume allows reading a secret by which a volume is opened that one of the node's
// pods claims. It is asked last: most secrets are named by pods.
func (n *Nodes) opensVolume(ctx context.Context, node string, q Attributes) bool {
	secret := types.NamespacedName{Namespace: q.Namespace, Name: q.Name}
	var claims []*corev1.ObjectReference
	n.each(ctx, target.Of(corev1.SchemeGroupVersion.WithResource("persistentvolumes"), ""), "", func(obj runtime.Object) (more bool) {
		v, ok := obj.(*corev1.PersistentVolume)
		if ok && v.Spec.ClaimRef != nil && slices.Contains(nodeSecrets(v), secret) {
			claims = append(claims, v.Spec.ClaimRef)
		}
		return true
	})
	return slices.ContainsFunc(claims, func(c *corev1.ObjectReference) bool {
		return n.wanted(ctx, node, c.Namespace, func(pod *corev1.Pod) bool { return refers(pod, "persistentvolumeclaims", c.Name) })
	})
}

// nodeSecrets are those that a node needs for a volume with a claim. CSI's for
// controllers are not among them.
func nodeSecrets(v *corev1.PersistentVolume) []types.NamespacedName {
	switch s := &v.Spec.PersistentVolumeSource; {
	case s.AzureFile != nil && s.AzureFile.SecretNamespace != nil:
		return []types.NamespacedName{{Namespace: cmp.Or(*s.AzureFile.SecretNamespace, v.Spec.ClaimRef.Namespace), Name: s.AzureFile.SecretName}}
	case s.AzureFile != nil:
		return []types.NamespacedName{{Namespace: v.Spec.ClaimRef.Namespace, Name: s.AzureFile.SecretName}}
	case s.CephFS != nil:
		return byClaim(v, s.CephFS.SecretRef)
	case s.FlexVolume != nil:
		return byClaim(v, s.FlexVolume.SecretRef)
	case s.RBD != nil:
		return byClaim(v, s.RBD.SecretRef)
	case s.ScaleIO != nil:
		return byClaim(v, s.ScaleIO.SecretRef)
	case s.ISCSI != nil:
		return byClaim(v, s.ISCSI.SecretRef)
	case s.Cinder != nil:
		return exactly(s.Cinder.SecretRef)
	case s.CSI != nil:
		return exactly(s.CSI.NodePublishSecretRef, s.CSI.NodeStageSecretRef, s.CSI.NodeExpandSecretRef)
	case s.StorageOS != nil && s.StorageOS.SecretRef != nil:
		return []types.NamespacedName{{Namespace: s.StorageOS.SecretRef.Namespace, Name: s.StorageOS.SecretRef.Name}}
	}
	return nil
}

// byClaim is a secret beside the claim, unless its reference says where it is.
func byClaim(v *corev1.PersistentVolume, ref *corev1.SecretReference) []types.NamespacedName {
	if ref == nil {
		return nil
	}
	return []types.NamespacedName{{Namespace: cmp.Or(ref.Namespace, v.Spec.ClaimRef.Namespace), Name: ref.Name}}
}

func exactly(refs ...*corev1.SecretReference) (all []types.NamespacedName) {
	for _, r := range refs {
		if r != nil {
			all = append(all, types.NamespacedName{Namespace: r.Namespace, Name: r.Name})
		}
	}
	return all
}
