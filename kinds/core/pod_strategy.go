package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// preparePod is how every pod begins: pending, in its first generation, and of
// the service class that its resources earn it, now that admission has had its
// say about them.
func preparePod(p *corev1.Pod) {
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
	kinds.FirstGeneration(p)
	DropUnserved(&p.Spec, nil)
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type:               corev1.PodScheduled,
			Status:             corev1.ConditionFalse,
			Reason:             corev1.PodReasonSchedulingGated,
			Message:            "Scheduling is blocked due to non-empty scheduling gates",
			LastTransitionTime: p.CreationTimestamp,
		}}
	}
	mergeLabelKeys(p)
	takeAppArmorAnnotations(p)
	defaultPodResources(p)
	p.Status.QOSClass = ComputeQOSClass(p)
}

func preparePodUpdate(p, old *corev1.Pod) {
	p.Status = old.Status
	if p.Spec.Resources == nil && old.Spec.Resources != nil {
		p.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
	DropUnserved(&p.Spec, &old.Spec)
	kinds.NextGeneration(p, old, !kinds.Same(p.Spec, old.Spec))
}

// podGrace is what the client asks for, or else what the pod does. A pod that
// no node has or that has ended goes at once.
func podGrace(obj kinds.Object, opts *metav1.DeleteOptions) (seconds int64, ok bool) {
	p := obj.(*corev1.Pod)
	grace := kinds.Deref(p.Spec.TerminationGracePeriodSeconds)
	if opts != nil && opts.GracePeriodSeconds != nil {
		grace = *opts.GracePeriodSeconds
	}
	ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	if p.Spec.NodeName == "" || ended {
		return 0, true
	}
	if grace < 0 {
		grace = 1
	}
	return grace, true
}

// mergeLabelKeys turns the (mis)matchLabelKeys of affinity and spreading into
// plain selector requirements, with the values that the pod's labels have now.
func mergeLabelKeys(p *corev1.Pod) {
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		require(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn, p.Labels)
	}
	for _, term := range podAffinityTerms(p.Spec.Affinity) {
		require(term.LabelSelector, term.MatchLabelKeys, metav1.LabelSelectorOpIn, p.Labels)
		require(term.LabelSelector, term.MismatchLabelKeys, metav1.LabelSelectorOpNotIn, p.Labels)
	}
}

func require(selector *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator, labels map[string]string) {
	if selector == nil {
		return
	}
	for _, key := range keys {
		value, ok := labels[key]
		if !ok {
			continue
		}
		selector.MatchExpressions = append(selector.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
	}
}

func podAffinityTerms(a *corev1.Affinity) []*corev1.PodAffinityTerm {
	var terms []*corev1.PodAffinityTerm
	add := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			terms = append(terms, &required[i])
		}
		for i := range preferred {
			terms = append(terms, &preferred[i].PodAffinityTerm)
		}
	}
	if a != nil && a.PodAffinity != nil {
		add(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a != nil && a.PodAntiAffinity != nil {
		add(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return terms
}

func podStatus() kinds.Subresource {
	sub := kinds.StatusRules(copyPodStatus, validatePodStatusUpdate)
	sub.Reset = []string{"spec", "metadata.deletionTimestamp", "metadata.ownerReferences"}
	take := sub.Copy
	sub.Copy = func(next kinds.Object, body runtime.Object) error {
		owners := next.GetOwnerReferences()
		if err := take(next, body); err != nil {
			return err
		}
		// Old kubelets mangle owner references when they write statuses.
		next.SetOwnerReferences(owners)
		return nil
	}
	return sub
}

// copyPodStatus takes the status over, except for what a writer that does not
// know a field would wipe out.
func copyPodStatus(next, body *corev1.Pod) {
	old := next.Status
	next.Status = body.Status
	s := &next.Status
	if len(old.NodeAllocatableResourceClaimStatuses) == 0 {
		s.NodeAllocatableResourceClaimStatuses = nil // nobody here makes any
	}
	if len(old.VolumeHealth) == 0 {
		s.VolumeHealth = nil
	}
	if s.QOSClass == "" {
		s.QOSClass = old.QOSClass
	}
	if s.ResourceClaimStatuses == nil {
		s.ResourceClaimStatuses = old.ResourceClaimStatuses
	}
	if s.ExtendedResourceClaimStatus == nil {
		s.ExtendedResourceClaimStatus = old.ExtendedResourceClaimStatus
	}
	if s.ObservedGeneration == 0 {
		s.ObservedGeneration = old.ObservedGeneration
	}
	seen := map[corev1.PodConditionType][]int64{}
	for _, c := range old.Conditions {
		seen[c.Type] = append(seen[c.Type], c.ObservedGeneration)
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		before := seen[c.Type]
		if len(before) == 0 {
			continue
		}
		seen[c.Type] = before[1:]
		if c.ObservedGeneration == 0 {
			c.ObservedGeneration = before[0]
		}
	}
	defaultPodStatus(s)
}

func podEphemeralContainers() kinds.Subresource {
	return kinds.Subresource{
		Name:  "ephemeralcontainers",
		Verbs: []string{"get", "patch", "update"},
		Copy: func(next kinds.Object, body runtime.Object) error {
			from, ok := body.(*corev1.Pod)
			if !ok {
				return fmt.Errorf("ephemeral containers of pod %q: body is a %T", next.GetName(), body)
			}
			p := next.(*corev1.Pod)
			changed := !kinds.Same(p.Spec.EphemeralContainers, from.Spec.EphemeralContainers)
			p.Spec.EphemeralContainers = from.DeepCopy().Spec.EphemeralContainers
			kinds.NextGeneration(p, p, changed)
			return nil
		},
		ValidateUpdate: kinds.CheckUpdate(validateEphemeralContainersUpdate),
	}
}

func podResize() kinds.Subresource {
	return kinds.Subresource{
		Name:  "resize",
		Verbs: []string{"get", "patch", "update"},
		Copy: func(next kinds.Object, body runtime.Object) error {
			from, ok := body.(*corev1.Pod)
			if !ok {
				return fmt.Errorf("resize pod %q: body is a %T", next.GetName(), body)
			}
			p := next.(*corev1.Pod)
			spec := p.Spec.DeepCopy()
			takeResize(p, from.DeepCopy())
			kinds.NextGeneration(p, p, !kinds.Same(*spec, p.Spec))
			return nil
		},
		ValidateUpdate: kinds.CheckUpdate(validatePodResize),
	}
}

// takeResize takes over resources and resize policies. A body that adds or drops
// containers is taken whole, and a list with other names too, for validation to
// refuse.
func takeResize(p, from *corev1.Pod) {
	if len(p.Spec.Containers) != len(from.Spec.Containers) || len(p.Spec.InitContainers) != len(from.Spec.InitContainers) {
		p.Spec, p.Status = from.Spec, from.Status
		return
	}
	p.Spec.Containers = takeResources(p.Spec.Containers, from.Spec.Containers)
	p.Spec.InitContainers = takeResources(p.Spec.InitContainers, from.Spec.InitContainers)
	if from.Spec.Resources != nil {
		p.Spec.Resources = from.Spec.Resources
		defaultPodResources(p)
	}
}

func takeResources(into, from []corev1.Container) []corev1.Container {
	for i := range into {
		if into[i].Name != from[i].Name {
			return from
		}
	}
	for i := range into {
		into[i].Resources, into[i].ResizePolicy = from[i].Resources, from[i].ResizePolicy
	}
	return into
}
