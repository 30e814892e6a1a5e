package scheduling

import (
	"time"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// GroupGate is upstream's name for what the kinds of GroupKinds are part of; off by
// default in v1.37.
const GroupGate = "GenericWorkload"

// GroupKinds lists the kinds by which pods are placed together or not at all. They
// are served where GroupGate is on.
func GroupKinds() []*kinds.Kind { return []*kinds.Kind{PodGroup(), Workload()} }

// PodGroup is the kind that says which pods are scheduled as one.
func PodGroup() *kinds.Kind {
	return &kinds.Kind{
		GVK:      schedulingv1beta1.SchemeGroupVersion.WithKind("PodGroup"),
		Resource: "podgroups", Singular: "podgroup", Storage: "podgroups", Namespaced: true,
		New:     func() kinds.Object { return &schedulingv1beta1.PodGroup{} },
		NewList: func() runtime.Object { return &schedulingv1beta1.PodGroupList{} },
		Strategy: kinds.Strategy{
			ForbidUnconditionalUpdate: true,
			Default: kinds.Each(func(g *schedulingv1beta1.PodGroup) {
				if g.Spec.DisruptionMode == nil {
					g.Spec.DisruptionMode = &schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}}
				}
			}),
			PrepareCreate: kinds.Each(func(g *schedulingv1beta1.PodGroup) {
				g.Status = schedulingv1beta1.PodGroupStatus{}
				dropFromGroup(&g.Spec)
			}),
			PrepareUpdate: kinds.Pair(func(g, old *schedulingv1beta1.PodGroup) {
				g.Status = old.Status
				dropFromGroup(&g.Spec)
			}),
			Validate:       kinds.Check(validateGroup),
			ValidateUpdate: kinds.CheckUpdate(validateGroupUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Columns("Name", "Policy", "Workload", "Age"),
			Row: kinds.Row(func(g *schedulingv1beta1.PodGroup, now time.Time) []any {
				workload := ""
				if ref := g.Spec.WorkloadRef; ref != nil {
					workload = ref.WorkloadName
				}
				return []any{g.Name, policyOf(&g.Spec.SchedulingPolicy), workload, kinds.Created(g, now)}
			}),
		},
		Subresources: []kinds.Subresource{
			kinds.StatusOnly(func(next, body *schedulingv1beta1.PodGroup) {
				next.Status = body.Status
				next.Status.ResourceClaimStatuses = nil
			}, validateGroupStatus),
		},
	}
}

func policyOf(p *schedulingv1beta1.PodGroupSchedulingPolicy) string {
	switch {
	case p.Gang != nil:
		return "Gang"
	case p.Basic != nil:
		return "Basic"
	}
	return ""
}

// Workload is the kind that holds the templates of pod groups.
func Workload() *kinds.Kind {
	return &kinds.Kind{
		GVK:      schedulingv1beta1.SchemeGroupVersion.WithKind("Workload"),
		Resource: "workloads", Singular: "workload", Storage: "workloads", Namespaced: true,
		New:     func() kinds.Object { return &schedulingv1beta1.Workload{} },
		NewList: func() runtime.Object { return &schedulingv1beta1.WorkloadList{} },
		Strategy: kinds.Strategy{
			ForbidUnconditionalUpdate: true,
			PrepareCreate:             kinds.Each(func(w *schedulingv1beta1.Workload) { dropFromWorkload(&w.Spec) }),
			PrepareUpdate:             kinds.Pair(func(w, _ *schedulingv1beta1.Workload) { dropFromWorkload(&w.Spec) }),
			Validate:                  kinds.Check(validateWorkload),
			ValidateUpdate:            kinds.CheckUpdate(validateWorkloadUpdate),
		},
		Table: kinds.Table{
			Columns: kinds.Columns("Name", "Age"),
			Row: kinds.Row(func(w *schedulingv1beta1.Workload, now time.Time) []any {
				return []any{w.Name, kinds.Created(w, now)}
			}),
		},
	}
}

// What has a gate of its own upstream that is off by default, and that nothing here
// understands, is dropped: topologies, claims of groups, groups of groups, and who
// may preempt. No stored object has any of it.

func dropFromGroup(s *schedulingv1beta1.PodGroupSpec) {
	s.SchedulingConstraints, s.ResourceClaims, s.PreemptionPolicy, s.ParentCompositePodGroupName = nil, nil, nil, nil
}

func dropFromWorkload(s *schedulingv1beta1.WorkloadSpec) {
	s.CompositePodGroupTemplates = nil
	for i := range s.PodGroupTemplates {
		t := &s.PodGroupTemplates[i]
		t.SchedulingConstraints, t.ResourceClaims, t.PreemptionPolicy = nil, nil, nil
	}
}
