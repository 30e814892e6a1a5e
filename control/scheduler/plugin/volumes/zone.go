package volumes

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/scheduler"
)

// Zone is upstream's VolumeZone: volumes that say by labels where they are can be
// used there only.
type Zone struct{ every }

// zoneLabels are those, each with its other name.
var zoneLabels = map[string]string{
	corev1.LabelTopologyZone:            corev1.LabelFailureDomainBetaZone,
	corev1.LabelTopologyRegion:          corev1.LabelFailureDomainBetaRegion,
	corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
	corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
}

// zoneSeparator is between the zones of a volume that is in several.
const zoneSeparator = "__"

// Name implements scheduler.Filter.
func (Zone) Name() string { return "VolumeZone" }

// Precheck implements scheduler.Prechecker: where a volume is cannot be known before it
// is there.
func (Zone) Precheck(pod *corev1.Pod, v scheduler.View) scheduler.Reason {
	for i := range pod.Spec.Volumes {
		from := pod.Spec.Volumes[i].PersistentVolumeClaim
		if from == nil {
			continue
		}
		claim := v.Storage().Claim(pod.Namespace, from.ClaimName)
		if claim != nil && claim.Spec.VolumeName != "" && v.Storage().Volume(claim.Spec.VolumeName) == nil {
			return scheduler.Reason{Text: fmt.Sprintf("persistentvolume %q not found", claim.Spec.VolumeName), Final: true}
		}
	}
	return scheduler.OK
}

// For implements scheduler.Filter.
func (Zone) For(pod *corev1.Pod, v scheduler.View) scheduler.Fit {
	type place struct {
		key    string
		values []string
	}
	var places []place
	for i := range pod.Spec.Volumes {
		pv := named(pod, &pod.Spec.Volumes[i], v.Storage())
		if pv == nil {
			continue
		}
		for key := range zoneLabels {
			if value, ok := pv.Labels[key]; ok {
				places = append(places, place{key, strings.Split(value, zoneSeparator)})
			}
		}
	}
	if len(places) == 0 {
		return nil
	}
	return func(n *scheduler.Node) scheduler.Reason {
		if !zoned(n) {
			return scheduler.OK // upstream's rule: a node that does not say where it is may be anywhere
		}
		for _, p := range places {
			value, ok := n.Labels[p.key]
			if !ok {
				value, ok = n.Labels[zoneLabels[p.key]]
			}
			if !ok || !slices.Contains(p.values, value) {
				return scheduler.Reason{Text: "node(s) had no available volume zone", Final: true}
			}
		}
		return scheduler.OK
	}
}

// named is the volume of a claim that the pod names; those of ephemeral claims are
// looked at by their node affinity alone, as upstream does.
func named(pod *corev1.Pod, v *corev1.Volume, s scheduler.Storage) *corev1.PersistentVolume {
	if v.PersistentVolumeClaim == nil {
		return nil
	}
	claim := s.Claim(pod.Namespace, v.PersistentVolumeClaim.ClaimName)
	if claim == nil {
		return nil
	}
	return s.Volume(claim.Spec.VolumeName)
}

func zoned(n *scheduler.Node) bool {
	for key := range zoneLabels {
		if _, ok := n.Labels[key]; ok {
			return true
		}
	}
	return false
}
