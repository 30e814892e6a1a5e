package scheduler

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Term is a pod (anti-)affinity term ready to be matched.
type Term struct {
	// Key is the term's topology key.
	Key string
	// Weight is what a preferred term is worth; 1 for others.
	Weight int64

	namespaces []string
	// byLabel selects namespaces in addition; nil selects none.
	byLabel  labels.Selector
	selector labels.Selector
}

// newTerm prepares a term of the pod that has it. Without namespaces it means
// the pod's own; (mis)matchLabelKeys have been merged into the selector by the
// API server (KEP-3633).
func newTerm(pod *corev1.Pod, t *corev1.PodAffinityTerm, weight int64) (Term, bool) {
	selector, err := metav1.LabelSelectorAsSelector(t.LabelSelector)
	if err != nil {
		return Term{}, false
	}
	out := Term{Key: t.TopologyKey, selector: selector, Weight: weight, namespaces: t.Namespaces}
	if t.NamespaceSelector != nil {
		if out.byLabel, err = metav1.LabelSelectorAsSelector(t.NamespaceSelector); err != nil {
			return Term{}, false
		}
	} else if own(t) {
		out.namespaces = []string{pod.Namespace}
	}
	return out, true
}

// Means says whether the term means pods of a namespace with these labels.
func (t *Term) Means(v View, namespace string, set map[string]string) bool {
	if !t.selector.Matches(labels.Set(set)) {
		return false
	}
	return slices.Contains(t.namespaces, namespace) ||
		t.byLabel != nil && t.byLabel.Matches(labels.Set(v.NamespaceLabels(namespace)))
}

// own says whether the term means the namespace of the pod that has it, whichever
// that is.
func own(t *corev1.PodAffinityTerm) bool { return t.NamespaceSelector == nil && len(t.Namespaces) == 0 }

// ownNamespace says whether any affinity term of a pod is about its own namespace.
func ownNamespace(a *corev1.Affinity) bool {
	var hard []corev1.PodAffinityTerm
	var soft []corev1.WeightedPodAffinityTerm
	if near := a.PodAffinity; near != nil {
		hard, soft = near.RequiredDuringSchedulingIgnoredDuringExecution, near.PreferredDuringSchedulingIgnoredDuringExecution
	}
	if far := a.PodAntiAffinity; far != nil {
		hard = slices.Concat(hard, far.RequiredDuringSchedulingIgnoredDuringExecution)
		soft = slices.Concat(soft, far.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return slices.ContainsFunc(hard, func(t corev1.PodAffinityTerm) bool { return own(&t) }) ||
		slices.ContainsFunc(soft, func(t corev1.WeightedPodAffinityTerm) bool { return own(&t.PodAffinityTerm) })
}

// ByNamespaceLabels says whether Means looks at the labels of namespaces.
func (t *Term) ByNamespaceLabels() bool { return t.byLabel != nil }

// Required are the hard terms of a pod; anti chooses which.
func Required(pod *corev1.Pod, anti bool) []Term {
	var from []corev1.PodAffinityTerm
	if a := pod.Spec.Affinity; a != nil && anti && a.PodAntiAffinity != nil {
		from = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	} else if a != nil && !anti && a.PodAffinity != nil {
		from = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	var list []Term
	for i := range from {
		if t, ok := newTerm(pod, &from[i], 1); ok {
			list = append(list, t)
		}
	}
	return list
}

// Preferred are the soft terms of a pod; anti chooses which.
func Preferred(pod *corev1.Pod, anti bool) []Term {
	var from []corev1.WeightedPodAffinityTerm
	if a := pod.Spec.Affinity; a != nil && anti && a.PodAntiAffinity != nil {
		from = a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	} else if a != nil && !anti && a.PodAffinity != nil {
		from = a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution
	}
	var list []Term
	for i := range from {
		if t, ok := newTerm(pod, &from[i].PodAffinityTerm, int64(from[i].Weight)); ok {
			list = append(list, t)
		}
	}
	return list
}
