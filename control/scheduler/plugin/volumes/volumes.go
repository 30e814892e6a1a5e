// Package volumes keeps pods to the nodes from which their volumes can be reached:
// upstream's VolumeRestrictions, NodeVolumeLimits, VolumeBinding and VolumeZone.
package volumes

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Annotations by which the scheduler, the binder and provisioners talk about
// claims and volumes; upstream's names.
const (
	annSelectedNode      = "volume.kubernetes.io/selected-node"
	annBindCompleted     = "pv.kubernetes.io/bind-completed"
	annBoundByController = "pv.kubernetes.io/bound-by-controller"
)

// noProvisioner is the provisioner of classes whose volumes are made by hand.
const noProvisioner = "kubernetes.io/no-provisioner"

// every is embedded by the filters here: they look at the claims of each pod.
type every struct{}

// Depends implements scheduler.Filter.
func (every) Depends() scheduler.Dependence { return scheduler.OnItself }

// claimName is the claim of one of the pod's volumes, "" when it has none.
func claimName(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return pod.Name + "-" + v.Name
	}
	return ""
}

// check says what is wrong with the pod's claims, whatever the node; upstream's
// words.
func check(pod *corev1.Pod, s scheduler.Storage) error {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		name := claimName(pod, v)
		if name == "" {
			continue
		}
		claim := s.Claim(pod.Namespace, name)
		switch {
		case claim == nil && v.Ephemeral != nil:
			return fmt.Errorf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
		case claim == nil:
			return fmt.Errorf("persistentvolumeclaim %q not found", name)
		case claim.Status.Phase == corev1.ClaimLost:
			return fmt.Errorf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
		case claim.DeletionTimestamp != nil:
			return fmt.Errorf("persistentvolumeclaim %q is being deleted", name)
		case v.Ephemeral != nil && !metav1.IsControlledBy(claim, pod):
			return fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", pod.Namespace, name, pod.Namespace, pod.Name)
		}
	}
	return nil
}

// claims are the pod's claims that exist, each once.
func claims(pod *corev1.Pod, s scheduler.Storage) []*corev1.PersistentVolumeClaim {
	var list []*corev1.PersistentVolumeClaim
	seen := map[string]bool{}
	for i := range pod.Spec.Volumes {
		name := claimName(pod, &pod.Spec.Volumes[i])
		if name == "" || seen[name] {
			continue
		}
		seen[name] = true
		if claim := s.Claim(pod.Namespace, name); claim != nil {
			list = append(list, claim)
		}
	}
	return list
}

// className is the storage class of a claim, also by the old annotation.
func className(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	if claim.Spec.StorageClassName != nil {
		return *claim.Spec.StorageClassName
	}
	return ""
}

// bound says whether a claim has its volume for good.
func bound(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeName != "" && claim.Annotations[annBindCompleted] != ""
}

// waits says whether a claim is bound only when its first pod has a node.
func waits(claim *corev1.PersistentVolumeClaim, s scheduler.Storage) bool {
	class := s.Class(className(claim))
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// reaches says whether a volume can be reached from a node.
func reaches(pv *corev1.PersistentVolume, n *corev1.Node) bool {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return true
	}
	selector, err := nodeaffinity.NewNodeSelector(pv.Spec.NodeAffinity.Required)
	return err == nil && selector.Match(n)
}
