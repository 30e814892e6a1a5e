package statefulset

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// owners says who shall own a pod's claims, by the set's retention policy: an
// owner that is deleted takes them along.
type owners struct{ set, pod bool }

func ownersOf(set *appsv1.StatefulSet, pod *corev1.Pod) owners {
	policy := set.Spec.PersistentVolumeClaimRetentionPolicy
	if policy == nil {
		return owners{}
	}
	deleted := policy.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	scaled := policy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	condemned := scaled && !within(set, pod)
	return owners{set: deleted && !condemned, pod: condemned}
}

// keepsAll: claims outlive both set and pods.
func keepsAll(set *appsv1.StatefulSet) bool {
	policy := set.Spec.PersistentVolumeClaimRetentionPolicy
	return policy == nil || policy.WhenDeleted != appsv1.DeletePersistentVolumeClaimRetentionPolicyType &&
		policy.WhenScaled != appsv1.DeletePersistentVolumeClaimRetentionPolicyType
}

// names says whether ref speaks of the set or the pod, of whatever uid.
func names(ref *metav1.OwnerReference, set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	return namesSet(ref, set) || namesPod(ref, pod)
}

func namesSet(ref *metav1.OwnerReference, set *appsv1.StatefulSet) bool {
	return ref.Kind == client.StatefulSets.Kind && ref.APIVersion == appsv1.SchemeGroupVersion.String() && ref.Name == set.Name
}

func namesPod(ref *metav1.OwnerReference, pod *corev1.Pod) bool {
	return ref.Kind == client.Pods.Kind && ref.APIVersion == corev1.SchemeGroupVersion.String() && ref.Name == pod.Name
}

// left says whether a claim belongs to an earlier set or pod of that name: the
// collector will see to it.
func left(claim *corev1.PersistentVolumeClaim, set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	return slices.ContainsFunc(claim.OwnerReferences, func(ref metav1.OwnerReference) bool {
		return namesSet(&ref, set) && ref.UID != set.UID || namesPod(&ref, pod) && ref.UID != pod.UID
	})
}

// contested says whether somebody else controls a claim that the set would have.
func contested(claim *corev1.PersistentVolumeClaim, set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	if keepsAll(set) {
		return false
	}
	return left(claim, set, pod) || slices.ContainsFunc(claim.OwnerReferences, func(ref metav1.OwnerReference) bool {
		return !names(&ref, set, pod) && ref.Controller != nil && *ref.Controller
	})
}

// settled says whether a claim's owners are as they shall be, or not ours to say.
func settled(claim *corev1.PersistentVolumeClaim, set *appsv1.StatefulSet, pod *corev1.Pod) bool {
	if left(claim, set, pod) {
		return true
	}
	var has owners
	for _, ref := range claim.OwnerReferences {
		ours := ref.UID == set.UID || ref.UID == pod.UID
		has.set, has.pod = has.set || ref.UID == set.UID, has.pod || ref.UID == pod.UID
		if ours && (ref.Controller == nil || !*ref.Controller) && !contested(claim, set, pod) {
			return false
		}
	}
	if contested(claim, set, pod) {
		return has == owners{}
	}
	return has == ownersOf(set, pod)
}

// settle is a claim with the owners that it shall have.
func settle(claim *corev1.PersistentVolumeClaim, set *appsv1.StatefulSet, pod *corev1.Pod) *corev1.PersistentVolumeClaim {
	next := claim.DeepCopy()
	next.OwnerReferences = slices.DeleteFunc(next.OwnerReferences, func(ref metav1.OwnerReference) bool { return names(&ref, set, pod) })
	if contested(claim, set, pod) {
		return next
	}
	want := ownersOf(set, pod)
	if want.set {
		next.OwnerReferences = append(next.OwnerReferences, client.StatefulSets.Owner(set))
	}
	if want.pod {
		next.OwnerReferences = append(next.OwnerReferences, client.Pods.Owner(pod))
	}
	return next
}

// newClaim is a pod's claim of a template.
func newClaim(set *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, pod *corev1.Pod) *corev1.PersistentVolumeClaim {
	claim := template.DeepCopy()
	claim.Name, claim.Namespace = claimName(set, template, pod), set.Namespace
	if claim.Labels == nil {
		claim.Labels = map[string]string{}
	}
	maps.Copy(claim.Labels, set.Spec.Selector.MatchLabels)
	if ownersOf(set, pod).set {
		claim.OwnerReferences = append(claim.OwnerReferences, client.StatefulSets.Owner(set))
	}
	return claim
}
