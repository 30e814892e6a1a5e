package namespace

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// statusOf is the namespace's status with upstream's five conditions: True means
// that something holds it back.
func statusOf(ns *corev1.Namespace, left remains, now time.Time) (corev1.NamespaceStatus, bool) {
	status := *ns.Status.DeepCopy()
	changed := false
	for _, c := range conditionsOf(left) {
		c.LastTransitionTime = metav1.NewTime(now)
		i := slices.IndexFunc(status.Conditions, func(have corev1.NamespaceCondition) bool { return have.Type == c.Type })
		if i < 0 {
			status.Conditions = append(status.Conditions, c)
			changed = true
			continue
		}
		have := status.Conditions[i]
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		if have != c {
			status.Conditions[i] = c
			changed = true
		}
	}
	return status, changed
}

func conditionsOf(left remains) []corev1.NamespaceCondition {
	content := condition(corev1.NamespaceDeletionContentFailure, "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	if n := len(left.errs); n > 0 {
		content = failing(content, "ContentDeletionFailed",
			fmt.Sprintf("Failed to delete all resource types, %d remaining: ", n), messages(left.errs))
	}
	remaining := condition(corev1.NamespaceContentRemaining, "ContentRemoved", "All content successfully removed")
	if len(left.kinds) > 0 {
		var kinds []string
		for kind, n := range left.kinds {
			kinds = append(kinds, fmt.Sprintf("%s.%s has %d resource instances", kind.Resource, kind.Group, n))
		}
		remaining = failing(remaining, "SomeResourcesRemain", "Some resources are remaining: ", kinds)
	}
	finalizers := condition(corev1.NamespaceFinalizersRemaining, "ContentHasNoFinalizers", "All content-preserving finalizers finished")
	if len(left.finalizers) > 0 {
		var names []string
		for name, n := range left.finalizers {
			names = append(names, fmt.Sprintf("%s in %d resource instances", name, n))
		}
		finalizers = failing(finalizers, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: ", names)
	}
	discovered := condition(corev1.NamespaceDeletionDiscoveryFailure, "ResourcesDiscovered", "All resources successfully discovered")
	if err := left.undiscovered(); err != nil {
		discovered = failing(discovered, "DiscoveryFailed", fmt.Sprintf("Discovery failed for some groups, %d failing: ", len(left.failed)), []string{err.Error()})
	}
	return []corev1.NamespaceCondition{
		discovered,
		condition(corev1.NamespaceDeletionGVParsingFailure, "ParsedGroupVersions", "All legacy kube types successfully parsed"),
		content, remaining, finalizers,
	}
}

func condition(kind corev1.NamespaceConditionType, reason, message string) corev1.NamespaceCondition {
	return corev1.NamespaceCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
}

// failing says what holds the namespace back, in an order that does not change.
func failing(c corev1.NamespaceCondition, reason, message string, what []string) corev1.NamespaceCondition {
	slices.Sort(what)
	c.Status, c.Reason, c.Message = corev1.ConditionTrue, reason, message+strings.Join(what, ", ")
	return c
}

func messages(errs []error) []string {
	var all []string
	for _, err := range errs {
		all = append(all, err.Error())
	}
	return all
}
