package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

const nullSelectorText = "a null labelSelector results in matching no pod"

// nodeAffinity warns of labels that others took the place of, and, where they are
// not refused, of values that no label can have.
func (w *warnings) nodeAffinity(a *corev1.Affinity, at *kinds.Path) {
	if a == nil || a.NodeAffinity == nil {
		return
	}
	at = at.Child("affinity").Child("nodeAffinity")
	if required := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		for i := range required.NodeSelectorTerms {
			w.nodeTerm(&required.NodeSelectorTerms[i], false, at.Child(requiredField).Child("nodeSelectorTerms").Index(i))
		}
	}
	for i := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		preferred := &a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i]
		w.nodeTerm(&preferred.Preference, true, at.Child(preferredField).Index(i).Child("preference"))
	}
}

func (w *warnings) nodeTerm(term *corev1.NodeSelectorTerm, values bool, at *kinds.Path) {
	for i, e := range term.MatchExpressions {
		here := at.Child("matchExpressions").Index(i)
		if message, ok := renamedLabels[e.Key]; ok {
			w.add(here.Child("key"), "%s is %s", e.Key, message)
		}
		for j, value := range e.Values {
			if !values {
				break
			}
			for _, message := range validation.IsValidLabelValue(value) {
				w.add(here.Child("values").Index(j), "%s is invalid, %s", value, message)
			}
		}
	}
}

// last are the warnings that come after those about containers.
func (w *warnings) last(spec *corev1.PodSpec, at *kinds.Path) {
	if grace := spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		w.add(at.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	if a := spec.Affinity; a != nil && a.PodAffinity != nil {
		w.terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution,
			a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("affinity").Child("podAffinity"))
	}
	if a := spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		w.terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution,
			a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, at.Child("affinity").Child("podAntiAffinity"))
	}
	if spec.DNSConfig != nil {
		for i, server := range spec.DNSConfig.Nameservers {
			*w = append(*w, validation.GetWarningsForIP(at.Child("dnsConfig").Child("nameservers").Index(i).Field(), server)...)
		}
	}
	for i, alias := range spec.HostAliases {
		*w = append(*w, validation.GetWarningsForIP(at.Child("hostAliases").Index(i).Child("ip").Field(), alias.IP)...)
	}
}

// terms warns of those that speak of no pod.
func (w *warnings) terms(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, at *kinds.Path) {
	for i := range required {
		if required[i].LabelSelector == nil {
			w.add(at.Child(requiredField).Index(i).Child("labelSelector"), nullSelectorText)
		}
	}
	for i := range preferred {
		if preferred[i].PodAffinityTerm.LabelSelector == nil {
			w.add(at.Child(preferredField).Index(i).Child("podAffinityTerm").Child("labelSelector"), nullSelectorText)
		}
	}
}

// sources warns of projections of nothing.
func (w *warnings) sources(volumes []corev1.Volume) {
	for i := range volumes {
		if volumes[i].Projected == nil {
			continue
		}
		for _, source := range volumes[i].Projected.Sources {
			if source == (corev1.VolumeProjection{}) {
				*w = append(*w, fmt.Sprintf("volume %q (Projected) has no sources provided", volumes[i].Name))
			}
		}
	}
}
