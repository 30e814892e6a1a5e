package scheduling

import (
	"testing"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func group(change func(*schedulingv1beta1.PodGroupSpec)) *schedulingv1beta1.PodGroup {
	g := &schedulingv1beta1.PodGroup{Spec: schedulingv1beta1.PodGroupSpec{
		SchedulingPolicy: schedulingv1beta1.PodGroupSchedulingPolicy{Gang: &schedulingv1beta1.GangSchedulingPolicy{MinCount: 2}},
		DisruptionMode:   &schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}},
	}}
	if change != nil {
		change(&g.Spec)
	}
	return g
}

func TestGroup(t *testing.T) {
	type change = func(*schedulingv1beta1.PodGroupSpec)
	toBasic := func(s *schedulingv1beta1.PodGroupSpec) {
		s.SchedulingPolicy = schedulingv1beta1.PodGroupSchedulingPolicy{Basic: &schedulingv1beta1.BasicSchedulingPolicy{}}
	}
	for name, c := range map[string]struct {
		change change
		create []string
		update []string
	}{
		"as it is":  {},
		"more pods": {change: func(s *schedulingv1beta1.PodGroupSpec) { s.SchedulingPolicy.Gang.MinCount = 3 }},
		"no pods": {change: func(s *schedulingv1beta1.PodGroupSpec) { s.SchedulingPolicy.Gang.MinCount = 0 },
			create: []string{"spec.schedulingPolicy.gang.minCount: Required value"},
			update: []string{"spec.schedulingPolicy.gang.minCount: Required value"}},
		"another policy": {change: toBasic,
			update: []string{"spec.schedulingPolicy.basic: Invalid value: null: field is immutable", "spec.schedulingPolicy.gang: Invalid value: null: field cannot be cleared once set"}},
		"no disruption mode": {change: func(s *schedulingv1beta1.PodGroupSpec) { s.DisruptionMode = nil },
			create: []string{"spec.disruptionMode: Required value"},
			update: []string{"spec.disruptionMode: Invalid value: null: field is immutable"}},
		"a workload": {change: func(s *schedulingv1beta1.PodGroupSpec) {
			s.WorkloadRef = &schedulingv1beta1.WorkloadReference{WorkloadName: "w"}
		},
			create: []string{"spec.workloadRef.templateName: Required value"},
			update: []string{"spec.workloadRef: Invalid value: null: field is immutable"}},
		"system priority": {change: func(s *schedulingv1beta1.PodGroupSpec) { p := int32(1_000_000_001); s.Priority = &p },
			create: []string{"spec.priority: Invalid value: 1000000001: must be less than or equal to 1000000000"},
			update: []string{"spec.priority: Invalid value: null: field is immutable"}},
	} {
		t.Run(name, func(t *testing.T) {
			same(t, "create", validateGroup(group(c.change)), c.create)
			same(t, "update", validateGroupUpdate(group(c.change), group(nil)), c.update)
		})
	}
}

func TestWorkload(t *testing.T) {
	workload := func(names ...string) *schedulingv1beta1.Workload {
		w := &schedulingv1beta1.Workload{}
		for _, name := range names {
			w.Spec.PodGroupTemplates = append(w.Spec.PodGroupTemplates, schedulingv1beta1.PodGroupTemplate{
				Name: name, SchedulingPolicy: schedulingv1beta1.PodGroupSchedulingPolicy{Basic: &schedulingv1beta1.BasicSchedulingPolicy{}},
			})
		}
		return w
	}
	same(t, "none", validateWorkload(workload()), []string{`spec: Invalid value: "": must specify one of: ` + "`podGroupTemplates`, `compositePodGroupTemplates`"})
	same(t, "two", validateWorkload(workload("a", "b")), nil)
	same(t, "added", validateWorkloadUpdate(workload("a", "b"), workload("a")), []string{"spec.podGroupTemplates[1]: Forbidden: item may not be added"})
	same(t, "removed", validateWorkloadUpdate(workload("a"), workload("a", "b")), []string{"spec.podGroupTemplates: Forbidden: item may not be removed"})
	uneven := workload("a", "b")
	uneven.Spec.PodGroupTemplates[1].PriorityClassName = "high"
	same(t, "uneven", validateWorkload(uneven), []string{"spec: Invalid value: null: detected multiple priority configurations"})
}

func TestDropFromWorkload(t *testing.T) {
	w := schedulingv1beta1.WorkloadSpec{
		CompositePodGroupTemplates: []schedulingv1beta1.CompositePodGroupTemplate{{Name: "c"}},
		PodGroupTemplates:          []schedulingv1beta1.PodGroupTemplate{{Name: "a", ResourceClaims: []schedulingv1beta1.PodGroupResourceClaim{{Name: "r"}}}},
	}
	dropFromWorkload(&w)
	if w.CompositePodGroupTemplates != nil || w.PodGroupTemplates[0].ResourceClaims != nil || w.PodGroupTemplates[0].Name != "a" {
		t.Errorf("left of the workload: %+v", w)
	}
}

func same(t *testing.T, what string, got field.ErrorList, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
	for i := range got {
		if got[i].Error() != want[i] {
			t.Errorf("%s: fault %d: got %q, want %q", what, i, got[i].Error(), want[i])
		}
	}
}
