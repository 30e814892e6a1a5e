package scheduling

import (
	"context"
	"slices"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apivalidate "k8s.io/apimachinery/pkg/api/validate"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

var spec = kinds.NewPath("spec")

// What is checked of these kinds upstream declares, but for little.
func validateGroup(g *schedulingv1beta1.PodGroup) field.ErrorList {
	r := rules{declared.Create()}
	r.group(&g.Spec, nil)
	return r.List()
}

func validateGroupUpdate(g, old *schedulingv1beta1.PodGroup) field.ErrorList {
	r := rules{declared.Update()}
	r.group(&g.Spec, &old.Spec)
	return r.List()
}

func validateGroupStatus(g, _ *schedulingv1beta1.PodGroup) field.ErrorList {
	return metav1validation.ValidateConditions(g.Status.Conditions, kinds.NewPath("status").Child("conditions").Field())
}

type rules struct{ *declared.Rules }

func (r rules) group(now, old *schedulingv1beta1.PodGroupSpec) {
	type group = schedulingv1beta1.PodGroupSpec
	declared.Fixed(r.Rules, now, old, spec.Child("workloadRef"), func(s *group) *schedulingv1beta1.WorkloadReference { return s.WorkloadRef },
		func(ref *schedulingv1beta1.WorkloadReference, at *kinds.Path) {
			if ref == nil {
				return
			}
			if r.NonEmpty(at.Child("workloadName"), ref.WorkloadName) {
				declared.String(r.Rules, ref.WorkloadName, at.Child("workloadName"), apivalidate.LongName[string])
			}
			if r.NonEmpty(at.Child("templateName"), ref.TemplateName) {
				declared.String(r.Rules, ref.TemplateName, at.Child("templateName"), apivalidate.ShortName[string])
			}
		})
	declared.Field(r.Rules, now, old, spec.Child("schedulingPolicy"), func(s *group) schedulingv1beta1.PodGroupSchedulingPolicy { return s.SchedulingPolicy },
		func(now, was schedulingv1beta1.PodGroupSchedulingPolicy, at *kinds.Path) { r.policy(&now, &was, at) })
	declared.Fixed(r.Rules, now, old, spec.Child("disruptionMode"), func(s *group) *schedulingv1beta1.DisruptionMode { return s.DisruptionMode },
		func(m *schedulingv1beta1.DisruptionMode, at *kinds.Path) {
			if m == nil {
				r.Faults.Required(at, "")
				return
			}
			r.disruption(m, at)
		})
	declared.Fixed(r.Rules, now, old, spec.Child("priorityClassName"), func(s *group) string { return s.PriorityClassName }, r.class)
	declared.Fixed(r.Rules, now, old, spec.Child("priority"), func(s *group) *int32 { return s.Priority }, r.priority)
}

var (
	policies    = apivalidate.NewUnionMembership(apivalidate.NewUnionMember("basic"), apivalidate.NewUnionMember("gang"))
	disruptions = apivalidate.NewUnionMembership(apivalidate.NewUnionMember("single"), apivalidate.NewUnionMember("all"))
	templates   = apivalidate.NewUnionMembership(apivalidate.NewUnionMember("podGroupTemplates"), apivalidate.NewUnionMember("compositePodGroupTemplates"))
)

// policy is either of two, and stays the one it is.
func (r rules) policy(now, old *schedulingv1beta1.PodGroupSchedulingPolicy, at *kinds.Path) {
	type policy = schedulingv1beta1.PodGroupSchedulingPolicy
	r.Join(apivalidate.Union(context.Background(), r.Operation(), at.Field(), now, old, policies,
		func(p *policy) bool { return p.Basic != nil }, func(p *policy) bool { return p.Gang != nil }))
	declared.Fixed(r.Rules, now, old, at.Child("basic"), func(p *policy) *schedulingv1beta1.BasicSchedulingPolicy { return p.Basic },
		func(*schedulingv1beta1.BasicSchedulingPolicy, *kinds.Path) {})
	declared.Field(r.Rules, now, old, at.Child("gang"), func(p *policy) *schedulingv1beta1.GangSchedulingPolicy { return p.Gang },
		func(now, was *schedulingv1beta1.GangSchedulingPolicy, at *kinds.Path) {
			if !declared.NeverSetNorUnset(r.Rules, now, was, at) || now == nil {
				return
			}
			switch at := at.Child("minCount"); {
			case now.MinCount == 0:
				r.Faults.Required(at, "")
			case now.MinCount < 0:
				r.Invalid(at, now.MinCount, "must be greater than or equal to 1")
			}
		})
}

func (r rules) disruption(m *schedulingv1beta1.DisruptionMode, at *kinds.Path) {
	type mode = schedulingv1beta1.DisruptionMode
	r.Join(apivalidate.Union(context.Background(), r.Operation(), at.Field(), m, nil, disruptions,
		func(m *mode) bool { return m != nil && m.Single != nil }, func(m *mode) bool { return m != nil && m.All != nil }))
}

func (r rules) class(name string, at *kinds.Path) {
	if name != "" {
		declared.String(r.Rules, name, at, apivalidate.LongName[string])
	}
}

func (r rules) priority(p *int32, at *kinds.Path) {
	if p != nil && *p > HighestUserPriority {
		r.Invalid(at, *p, "must be less than or equal to 1000000000")
	}
}

func validateWorkload(w *schedulingv1beta1.Workload) field.ErrorList {
	r := rules{declared.Create()}
	r.workload(&w.Spec, &schedulingv1beta1.WorkloadSpec{})
	return append(checkWorkload(&w.Spec), r.List()...)
}

func validateWorkloadUpdate(w, old *schedulingv1beta1.Workload) field.ErrorList {
	r := rules{declared.Update()}
	r.workload(&w.Spec, &old.Spec)
	return append(checkWorkload(&w.Spec), r.List()...)
}

// checkWorkload is what upstream checks by hand: that all of a workload is equally
// important.
func checkWorkload(s *schedulingv1beta1.WorkloadSpec) field.ErrorList {
	var f kinds.Faults
	if slices.ContainsFunc(s.PodGroupTemplates, func(t schedulingv1beta1.PodGroupTemplate) bool {
		first := &s.PodGroupTemplates[0]
		return t.PriorityClassName != first.PriorityClassName || !kinds.Same(t.Priority, first.Priority)
	}) {
		f.Invalid(spec, nil, "detected multiple priority configurations")
	}
	return f.List()
}

func (r rules) workload(now, old *schedulingv1beta1.WorkloadSpec) {
	type workload = schedulingv1beta1.WorkloadSpec
	r.Join(apivalidate.Union(context.Background(), r.Operation(), spec.Field(), now, old, templates,
		func(s *workload) bool { return len(s.PodGroupTemplates) != 0 }, func(s *workload) bool { return len(s.CompositePodGroupTemplates) != 0 }))
	declared.Fixed(r.Rules, now, old, spec.Child("controllerRef"), func(s *workload) *schedulingv1beta1.TypedLocalObjectReference { return s.ControllerRef },
		func(ref *schedulingv1beta1.TypedLocalObjectReference, at *kinds.Path) {
			if ref == nil {
				return
			}
			r.class(ref.APIGroup, at.Child("apiGroup"))
			if r.NonEmpty(at.Child("kind"), ref.Kind) {
				declared.String(r.Rules, ref.Kind, at.Child("kind"), apivalidate.PathSegmentName[string])
			}
			if r.NonEmpty(at.Child("name"), ref.Name) {
				declared.String(r.Rules, ref.Name, at.Child("name"), apivalidate.PathSegmentName[string])
			}
		})
	named := func(a, b *schedulingv1beta1.PodGroupTemplate) bool { return a.Name == b.Name }
	declared.Field(r.Rules, now, old, spec.Child("podGroupTemplates"), func(s *workload) []schedulingv1beta1.PodGroupTemplate { return s.PodGroupTemplates },
		func(list, was []schedulingv1beta1.PodGroupTemplate, at *kinds.Path) {
			if n := len(list); n > schedulingv1beta1.WorkloadMaxPodGroupTemplates {
				r.TooMany(at, n, schedulingv1beta1.WorkloadMaxPodGroupTemplates)
				declared.Kept(r.Rules, list, was, at, named)
				return
			}
			if declared.Kept(r.Rules, list, was, at, named) && len(list) > 0 {
				self := func(s *[]schedulingv1beta1.PodGroupTemplate) []schedulingv1beta1.PodGroupTemplate { return *s }
				declared.List(r.Rules, &list, &was, at, self, declared.Each[schedulingv1beta1.PodGroupTemplate]{Same: named, Check: r.template})
			}
		})
}

func (r rules) template(now, old *schedulingv1beta1.PodGroupTemplate, at *kinds.Path) {
	type template = schedulingv1beta1.PodGroupTemplate
	declared.Required(r.Rules, now, old, at.Child("name"), func(t *template) string { return t.Name }, apivalidate.ShortName[string])
	declared.Field(r.Rules, now, old, at.Child("schedulingPolicy"), func(t *template) schedulingv1beta1.PodGroupSchedulingPolicy { return t.SchedulingPolicy },
		func(now, was schedulingv1beta1.PodGroupSchedulingPolicy, at *kinds.Path) { r.policy(&now, &was, at) })
	declared.Fixed(r.Rules, now, old, at.Child("disruptionMode"), func(t *template) *schedulingv1beta1.DisruptionMode { return t.DisruptionMode },
		func(m *schedulingv1beta1.DisruptionMode, at *kinds.Path) {
			if m != nil {
				r.disruption(m, at)
			}
		})
	declared.Fixed(r.Rules, now, old, at.Child("priorityClassName"), func(t *template) string { return t.PriorityClassName }, r.class)
	declared.Fixed(r.Rules, now, old, at.Child("priority"), func(t *template) *int32 { return t.Priority }, r.priority)
}
