package scheduling

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

const (
	// HighestUserPriority is the highest priority that a user may define; what
	// is above belongs to the system.
	HighestUserPriority int32 = 1000000000
	// systemPrefix is how the names of the system's classes begin.
	systemPrefix = "system-"
)

// SystemClasses are the classes that every cluster has, by name.
func SystemClasses() map[string]int32 {
	return map[string]int32{
		"system-cluster-critical": 2 * HighestUserPriority,
		"system-node-critical":    2*HighestUserPriority + 1000,
	}
}

func validate(c *schedulingv1.PriorityClass) field.ErrorList {
	var f kinds.Faults
	if strings.HasPrefix(c.Name, systemPrefix) {
		if problem := notSystem(c); problem != "" {
			f.Forbidden(kinds.NewPath("metadata").Child("name"),
				"priority class names with 'system-' prefix are reserved for system use only. error: "+problem)
		}
	} else if c.Value > HighestUserPriority {
		f.Forbidden(kinds.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", HighestUserPriority))
	}
	if c.PreemptionPolicy != nil {
		kinds.RequiredListed(&f, kinds.NewPath("preemptionPolicy"), *c.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	return f.List()
}

// notSystem says why a class is not one of the system's own, or "".
func notSystem(c *schedulingv1.PriorityClass) string {
	value, known := SystemClasses()[c.Name]
	switch {
	case !known:
		return fmt.Sprintf("%v is not a known system priority class", c.Name)
	case c.Value != value:
		return fmt.Sprintf("value of %v PriorityClass must be %v", c.Name, value)
	case c.GlobalDefault:
		return fmt.Sprintf("globalDefault of %v PriorityClass must be false", c.Name)
	}
	return ""
}

func validateUpdate(c, old *schedulingv1.PriorityClass) field.ErrorList {
	var f kinds.Faults
	if c.Value != old.Value {
		f.Forbidden(kinds.NewPath("value"), "may not be changed in an update.")
	}
	f.Immutable(kinds.NewPath("preemptionPolicy"), c.PreemptionPolicy, old.PreemptionPolicy)
	return f.List()
}
