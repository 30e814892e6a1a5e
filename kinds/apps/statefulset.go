package apps

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
)

// StatefulSet is the kind that keeps numbered pods with their own storage.
func StatefulSet() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("StatefulSet"),
		Resource:   "statefulsets",
		Singular:   "statefulset",
		Short:      []string{"sts"},
		Categories: []string{"all"},
		Namespaced: true,
		Storage:    "statefulsets",
		New:        func() kinds.Object { return &appsv1.StatefulSet{} },
		NewList:    func() runtime.Object { return &appsv1.StatefulSetList{} },
		Strategy: kinds.Strategy{
			Ratchet:        core.TemplateRatchet("spec.template"),
			Default:        kinds.Each(defaultStatefulSet),
			Loaded:         kinds.Each(nameClaims),
			PrepareCreate:  kinds.Each(prepareStatefulSet),
			PrepareUpdate:  kinds.Pair(prepareStatefulSetUpdate),
			Validate:       kinds.Check(validateStatefulSet),
			ValidateUpdate: kinds.CheckUpdate(validateStatefulSetUpdate),
			ValidateName:   apivalidation.NameIsDNSLabel,
			Warnings: kinds.WarnAll(kinds.WarnWhenChanged(
				core.TemplateWarnings(func(s *appsv1.StatefulSet) *corev1.PodTemplateSpec { return &s.Spec.Template }, "spec", "template")), kinds.Warn(warnOfHistory)),
			Generation: true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(statefulSetTexts(), "Name", "Ready", "Age", "Containers|wide", "Images|wide"),
			Row: kinds.Row(func(s *appsv1.StatefulSet, now time.Time) []any {
				names, images := kinds.ContainerCells(s.Spec.Template.Spec.Containers)
				return []any{s.Name, kinds.Ready(s.Status.ReadyReplicas, kinds.Deref(s.Spec.Replicas)),
					kinds.Created(s, now), names, images}
			}),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *appsv1.StatefulSet) { next.Status = body.Status }, validateStatefulSetStatusUpdate),
			kinds.ScaleOf(kinds.Scaled[*appsv1.StatefulSet]{
				Replicas: func(s *appsv1.StatefulSet) **int32 { return &s.Spec.Replicas },
				Current:  func(s *appsv1.StatefulSet) int32 { return s.Status.Replicas },
				Selector: func(s *appsv1.StatefulSet) string { return selectorText(s.Spec.Selector) },
			}),
		},
	}
}

// nameClaims says of each claim template what it is, as upstream shows it: the
// stored protobuf has no room for that.
func nameClaims(s *appsv1.StatefulSet) {
	for i := range s.Spec.VolumeClaimTemplates {
		claim := &s.Spec.VolumeClaimTemplates[i]
		claim.APIVersion, claim.Kind = "v1", "PersistentVolumeClaim"
	}
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	core.DefaultPodTemplate(&s.Spec.Template)
	nameClaims(s)
	for i := range s.Spec.VolumeClaimTemplates {
		core.DefaultClaim(&s.Spec.VolumeClaimTemplates[i])
	}
	if s.Spec.PodManagementPolicy == "" {
		s.Spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	orDefault(&s.Spec.Replicas, 1)
	orDefault(&s.Spec.RevisionHistoryLimit, 10)
	orDefault(&s.Spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	retention := s.Spec.PersistentVolumeClaimRetentionPolicy
	if retention.WhenDeleted == "" {
		retention.WhenDeleted = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	if retention.WhenScaled == "" {
		retention.WhenScaled = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	strategy := &s.Spec.UpdateStrategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		orDefault(&strategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
	}
	// Whoever names the type alone gets no parameters, as upstream.
	if strategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && strategy.RollingUpdate != nil {
		orDefault(&strategy.RollingUpdate.Partition, 0)
		orDefault(&strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
	}
}

func prepareStatefulSet(s *appsv1.StatefulSet) {
	s.Status = appsv1.StatefulSetStatus{}
	kinds.FirstGeneration(s)
	core.DropUnservedTemplate(&s.Spec.Template, nil)
}

func prepareStatefulSetUpdate(s, old *appsv1.StatefulSet) {
	s.Status = old.Status
	core.DropUnservedTemplate(&s.Spec.Template, &old.Spec.Template)
	kinds.NextGeneration(s, old, !kinds.Same(s.Spec, old.Spec))
}

// warnOfHistory warns, each time, of a limit that limits nothing.
func warnOfHistory(s, _ *appsv1.StatefulSet) []string {
	if kinds.Deref(s.Spec.RevisionHistoryLimit) >= 0 {
		return nil
	}
	return []string{"spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"}
}
