package apps

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

func validateStatefulSet(s *appsv1.StatefulSet) field.ErrorList {
	return checkStatefulSet(s, statefulRules{claims: true, service: true, template: true})
}

// statefulRules say which parts are checked. In an update claim templates and the
// service's name are not: they never change; nor is a pod template if the set was
// wrong before.
type statefulRules struct{ claims, service, template bool }

func checkStatefulSet(s *appsv1.StatefulSet, rules statefulRules) field.ErrorList {
	var f kinds.Faults
	at, spec := kinds.NewPath("spec"), &s.Spec
	switch spec.PodManagementPolicy {
	case "":
		f.Required(at.Child("podManagementPolicy"), "")
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		f.Invalid(at.Child("podManagementPolicy"), spec.PodManagementPolicy, fmt.Sprintf("must be '%s' or '%s'",
			appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement))
	}
	validateStatefulStrategy(&f, &spec.UpdateStrategy, at.Child("updateStrategy"))
	if retention := spec.PersistentVolumeClaimRetentionPolicy; retention != nil {
		here := at.Child("persistentVolumeClaimRetentionPolicy")
		retain, remove := appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		kinds.Listed(&f, here.Child("whenDeleted"), retention.WhenDeleted, retain, remove)
		kinds.Listed(&f, here.Child("whenScaled"), retention.WhenScaled, retain, remove)
	}
	for i := 0; rules.claims && i < len(spec.VolumeClaimTemplates); i++ {
		f.Join(core.ValidateClaimSpec(&spec.VolumeClaimTemplates[i].Spec, at.Child("volumeClaimTemplates").Index(i).Child("spec")))
	}
	f.NonNegative(at.Child("replicas"), int64(kinds.Deref(spec.Replicas)))
	f.NonNegative(at.Child("minReadySeconds"), int64(spec.MinReadySeconds))
	if spec.Ordinals != nil {
		f.NonNegative(at.Child("ordinals.start"), int64(spec.Ordinals.Start))
	}
	if rules.service && spec.ServiceName != "" {
		f.Each(at.Child("serviceName"), spec.ServiceName, validation.IsDNS1123Label(spec.ServiceName))
	}
	if checkSelector(&f, spec.Selector, &spec.Template, "statefulset", "") && rules.template {
		f.Join(core.ValidatePodTemplate(asMade(spec), at.Child("template")))
	}
	f.Join(core.ValidateLasting(&spec.Template, "StatefulSet", at.Child("template")))
	return f.List()
}

// asMade is the template as the controller makes pods of it: it sets host name
// and subdomain itself, and adds a volume for each claim template.
func asMade(spec *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	t := spec.Template.DeepCopy()
	t.Spec.Hostname, t.Spec.Subdomain = "", ""
	claimed := map[string]bool{}
	var volumes []corev1.Volume
	for i := range spec.VolumeClaimTemplates {
		name := spec.VolumeClaimTemplates[i].Name
		if claimed[name] {
			continue
		}
		claimed[name] = true
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name},
		}})
	}
	// The volumes come first in upstream's copy too, so that the indexes in
	// messages agree.
	for _, v := range t.Spec.Volumes {
		if !claimed[v.Name] {
			volumes = append(volumes, v)
		}
	}
	t.Spec.Volumes = volumes
	return t
}

func validateStatefulStrategy(f *kinds.Faults, s *appsv1.StatefulSetUpdateStrategy, at *kinds.Path) {
	rolling := at.Child("rollingUpdate")
	switch s.Type {
	case "":
		f.Required(at, "")
	case appsv1.OnDeleteStatefulSetStrategyType:
		if s.RollingUpdate != nil {
			f.Invalid(rolling, s.RollingUpdate, "only allowed for updateStrategy 'RollingUpdate'")
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if s.RollingUpdate == nil {
			return
		}
		f.NonNegative(rolling.Child("partition"), int64(kinds.Deref(s.RollingUpdate.Partition)))
		most := s.RollingUpdate.MaxUnavailable
		if most == nil {
			return
		}
		f.Amount(rolling.Child("maxUnavailable"), most)
		if kinds.AmountValue(most) == 0 {
			f.Invalid(rolling.Child("maxUnavailable"), *most, "cannot be 0")
		}
		f.AtMostAll(rolling.Child("maxUnavailable"), most)
	default:
		f.Invalid(at, *s, fmt.Sprintf("must be '%s' or '%s'",
			appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType))
	}
}

// validateStatefulSetUpdate: what a pod's identity and storage hang on stays.
func validateStatefulSetUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	var f kinds.Faults
	rules := statefulRules{template: true}
	rules.template = len(checkStatefulSet(old, rules)) == 0
	f.Join(checkStatefulSet(s, rules))
	at := kinds.NewPath("spec")
	f.Immutable(at.Child("selector"), s.Spec.Selector, old.Spec.Selector)
	f.Immutable(at.Child("volumeClaimTemplates"), s.Spec.VolumeClaimTemplates, old.Spec.VolumeClaimTemplates)
	f.Immutable(at.Child("serviceName"), s.Spec.ServiceName, old.Spec.ServiceName)
	f.Immutable(at.Child("podManagementPolicy"), s.Spec.PodManagementPolicy, old.Spec.PodManagementPolicy)
	return f.List()
}

func validateStatefulSetStatusUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	var f kinds.Faults
	at, status := kinds.NewPath("status"), &s.Status
	f.NonNegative(at.Child("replicas"), int64(status.Replicas))
	f.NonNegative(at.Child("observedGeneration"), status.ObservedGeneration)
	f.Within(at, status.Replicas, "status.replicas", kinds.Count{Field: "readyReplicas", Value: status.ReadyReplicas},
		kinds.Count{Field: "currentReplicas", Value: status.CurrentReplicas},
		kinds.Count{Field: "updatedReplicas", Value: status.UpdatedReplicas},
		kinds.Count{Field: "availableReplicas", Value: status.AvailableReplicas})
	if status.AvailableReplicas > status.ReadyReplicas {
		f.Invalid(at.Child("availableReplicas"), status.AvailableReplicas, "cannot be greater than status.readyReplicas")
	}
	f.NeverLess(at.Child("collisionCount"), status.CollisionCount, old.Status.CollisionCount)
	return f.List()
}
