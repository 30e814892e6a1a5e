package apps

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/kinds"
)

// checkSelector checks that a workload's selector selects its pods, and says
// whether it can be read: of those that cannot, upstream does not look at the
// template either. word is what messages call the workload, unreadable what they
// say of a selector that makes no sense.
func checkSelector(f *kinds.Faults, s *metav1.LabelSelector, t *corev1.PodTemplateSpec, word, unreadable string) bool {
	at := kinds.NewPath("spec").Child("selector")
	if s == nil {
		f.Required(at, "")
	} else {
		f.Join(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, at.Field()))
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			f.Invalid(at, s, "empty selector is invalid for "+word)
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		f.Invalid(at, s, unreadable)
		return false
	}
	if !selector.Empty() {
		checkMatch(f, selector, t)
	}
	return true
}

func checkMatch(f *kinds.Faults, selector labels.Selector, t *corev1.PodTemplateSpec) {
	if !selector.Matches(labels.Set(t.Labels)) {
		f.Invalid(kinds.NewPath("spec").Child("template").Child("metadata").Child("labels"), t.Labels, "`selector` does not match template `labels`")
	}
}

// checkDaemonSelector is checkSelector for DaemonSets, of which upstream does not
// say that the selector is missing or makes no sense.
func checkDaemonSelector(f *kinds.Faults, s *metav1.LabelSelector, t *corev1.PodTemplateSpec) {
	at := kinds.NewPath("spec").Child("selector")
	f.Join(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, at.Field()))
	if selector, err := metav1.LabelSelectorAsSelector(s); err == nil {
		checkMatch(f, selector, t)
	}
	if s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		f.Invalid(at, s, "empty selector is invalid for daemonset")
	}
}
