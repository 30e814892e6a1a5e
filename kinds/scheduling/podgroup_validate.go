package scheduling

import (
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

var spec = field.NewPath("spec")

func validateGroup(g *schedulingv1beta1.PodGroup) field.ErrorList {
	var f kinds.Faults
	s := &g.Spec
	if s.ParentCompositePodGroupName != nil { // its gate is alpha
		f.Forbidden(spec.Child("parentCompositePodGroupName"), "")
	}
	if s.SchedulingConstraints != nil {
		f.Forbidden(spec.Child("schedulingConstraints"), "")
	}
	if s.PreemptionPolicy != nil {
		f.Forbidden(spec.Child("preemptionPolicy"), "")
	}
	if ref := s.WorkloadRef; ref != nil {
		name(&f, ref.WorkloadName, spec.Child("workloadRef", "workloadName"))
		if at := spec.Child("workloadRef", "templateName"); f.NonEmpty(at, ref.TemplateName) {
			f.Each(at, ref.TemplateName, validation.IsDNS1123Label(ref.TemplateName))
		}
	}
	policy(&f, &s.SchedulingPolicy, spec.Child("schedulingPolicy"))
	disruption(&f, s.DisruptionMode, spec.Child("disruptionMode"))
	rank(&f, s.PriorityClassName, s.Priority, spec)
	return f.List()
}

// policy is either of the two.
func policy(f *kinds.Faults, p *schedulingv1beta1.PodGroupSchedulingPolicy, at *field.Path) {
	switch {
	case p.Basic == nil && p.Gang == nil:
		f.Invalid(at, "", "must specify one of: `basic`, `gang`")
	case p.Basic != nil && p.Gang != nil:
		f.Invalid(at, "{`basic`, `gang`}", "must specify exactly one of: `basic`, `gang`")
	case p.Gang != nil && p.Gang.MinCount < 1:
		f.Invalid(at.Child("gang", "minCount"), p.Gang.MinCount, "must be greater than or equal to 1")
	}
}

func disruption(f *kinds.Faults, m *schedulingv1beta1.DisruptionMode, at *field.Path) {
	switch {
	case m == nil:
	case m.Single == nil && m.All == nil:
		f.Invalid(at, "", "must specify one of: `all`, `single`")
	case m.Single != nil && m.All != nil:
		f.Invalid(at, "{`all`, `single`}", "must specify exactly one of: `all`, `single`")
	}
}

func rank(f *kinds.Faults, class string, priority *int32, at *field.Path) {
	if class != "" {
		f.Each(at.Child("priorityClassName"), class, validation.IsDNS1123Subdomain(class))
	}
	if priority != nil && *priority > HighestUserPriority {
		f.Invalid(at.Child("priority"), *priority, "must be less than or equal to 1000000000")
	}
}

func name(f *kinds.Faults, value string, at *field.Path) {
	if f.NonEmpty(at, value) {
		f.Each(at, value, validation.IsDNS1123Subdomain(value))
	}
}

// validateGroupUpdate lets nothing change but how many pods of a gang are enough.
func validateGroupUpdate(g, old *schedulingv1beta1.PodGroup) field.ErrorList {
	var f kinds.Faults
	f.Join(validateGroup(g))
	now, was := g.Spec.DeepCopy(), old.Spec.DeepCopy()
	if now.SchedulingPolicy.Gang != nil && was.SchedulingPolicy.Gang != nil {
		now.SchedulingPolicy.Gang.MinCount = was.SchedulingPolicy.Gang.MinCount
	}
	f.Immutable(spec.Child("schedulingPolicy"), now.SchedulingPolicy, was.SchedulingPolicy)
	f.Immutable(spec.Child("workloadRef"), now.WorkloadRef, was.WorkloadRef)
	f.Immutable(spec.Child("resourceClaims"), now.ResourceClaims, was.ResourceClaims)
	f.Immutable(spec.Child("disruptionMode"), now.DisruptionMode, was.DisruptionMode)
	f.Immutable(spec.Child("priorityClassName"), now.PriorityClassName, was.PriorityClassName)
	f.Immutable(spec.Child("priority"), now.Priority, was.Priority)
	return f.List()
}

func validateGroupStatus(g, _ *schedulingv1beta1.PodGroup) field.ErrorList {
	return metav1validation.ValidateConditions(g.Status.Conditions, field.NewPath("status", "conditions"))
}

func validateWorkload(w *schedulingv1beta1.Workload) field.ErrorList {
	var f kinds.Faults
	at := spec.Child("podGroupTemplates")
	if n := len(w.Spec.PodGroupTemplates); n == 0 {
		f.Required(at, "")
	} else if n > schedulingv1beta1.WorkloadMaxPodGroupTemplates {
		f.TooMany(at, n, schedulingv1beta1.WorkloadMaxPodGroupTemplates)
		return f.List()
	}
	if w.Spec.CompositePodGroupTemplates != nil { // their gate is alpha
		f.Forbidden(spec.Child("compositePodGroupTemplates"), "")
	}
	if ref := w.Spec.ControllerRef; ref != nil {
		here := spec.Child("controllerRef")
		f.NonEmpty(here.Child("kind"), ref.Kind)
		f.NonEmpty(here.Child("name"), ref.Name)
	}
	seen := map[string]bool{}
	for i := range w.Spec.PodGroupTemplates {
		t, here := &w.Spec.PodGroupTemplates[i], at.Index(i)
		if f.NonEmpty(here.Child("name"), t.Name) {
			f.Each(here.Child("name"), t.Name, validation.IsDNS1123Label(t.Name))
		}
		if seen[t.Name] {
			f.Duplicate(here, t.Name)
		}
		seen[t.Name] = true
		policy(&f, &t.SchedulingPolicy, here.Child("schedulingPolicy"))
		disruption(&f, t.DisruptionMode, here.Child("disruptionMode"))
		rank(&f, t.PriorityClassName, t.Priority, here)
		first := &w.Spec.PodGroupTemplates[0]
		if i > 0 && (t.PriorityClassName != first.PriorityClassName || !kinds.Same(t.Priority, first.Priority)) {
			f.Invalid(spec, nil, "detected multiple priority configurations")
		}
	}
	return f.List()
}

func validateWorkloadUpdate(w, old *schedulingv1beta1.Workload) field.ErrorList {
	var f kinds.Faults
	f.Join(validateWorkload(w))
	if old.Spec.ControllerRef != nil {
		f.Immutable(spec.Child("controllerRef"), w.Spec.ControllerRef, old.Spec.ControllerRef)
	}
	f.Immutable(spec.Child("podGroupTemplates"), w.Spec.PodGroupTemplates, old.Spec.PodGroupTemplates)
	return f.List()
}
