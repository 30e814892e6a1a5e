// Package scheduling says what the kinds of the scheduling.k8s.io group are.
package scheduling

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{PriorityClass()} }

// PriorityClass is the kind that gives a priority a name.
func PriorityClass() *kinds.Kind {
	return &kinds.Kind{
		GVK:      schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"),
		Resource: "priorityclasses",
		Singular: "priorityclass",
		Short:    []string{"pc"},
		Storage:  "priorityclasses",
		New:      func() kinds.Object { return &schedulingv1.PriorityClass{} },
		NewList:  func() runtime.Object { return &schedulingv1.PriorityClassList{} },
		Strategy: kinds.Strategy{
			Default:        kinds.Each(defaultPriorityClass),
			PrepareCreate:  kinds.Each(func(c *schedulingv1.PriorityClass) { kinds.FirstGeneration(c) }),
			Validate:       kinds.Check(validate),
			ValidateUpdate: kinds.CheckUpdate(validateUpdate),
			Generation:     true,
		},
		Table: kinds.Table{
			Columns: kinds.Explained(priorityClassTexts(), "Name", "Value|integer", "Global-Default|boolean", "Age", "PreemptionPolicy"),
			Row: kinds.Row(func(c *schedulingv1.PriorityClass, now time.Time) []any {
				return []any{c.Name, int64(c.Value), c.GlobalDefault, kinds.Created(c, now), string(kinds.Deref(c.PreemptionPolicy))}
			}),
		},
	}
}

func defaultPriorityClass(c *schedulingv1.PriorityClass) {
	if c.PreemptionPolicy == nil {
		policy := corev1.PreemptLowerPriority
		c.PreemptionPolicy = &policy
	}
}
