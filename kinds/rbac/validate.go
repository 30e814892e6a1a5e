package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

func validateRole(r *rbacv1.Role) field.ErrorList {
	var f kinds.Faults
	checkRules(&f, r.Rules, true)
	return declaredRules(r.Rules, nil, false).Behind(f.List())
}

func validateRoleUpdate(r, old *rbacv1.Role) field.ErrorList {
	var f kinds.Faults
	checkRules(&f, r.Rules, true)
	return declaredRules(r.Rules, old.Rules, true).Behind(f.List())
}

// declaredRules are upstream's declared rules about rules.
func declaredRules(now, old []rbacv1.PolicyRule, update bool) *declared.Rules {
	r := declared.Create()
	if update {
		r = declared.Update()
	}
	self := func(s *[]rbacv1.PolicyRule) []rbacv1.PolicyRule { return *s }
	declared.List(r, &now, &old, kinds.NewPath("rules"), self, declared.Each[rbacv1.PolicyRule]{Check: func(rule, _ *rbacv1.PolicyRule, at *kinds.Path) {
		if len(rule.Verbs) == 0 {
			r.Faults.Required(at.Child("verbs"), "")
		}
	}})
	return r
}

func validateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	return declaredRules(r.Rules, nil, false).Behind(clusterRole(r, metavalidation.LabelSelectorValidationOptions{}))
}

func clusterRole(r *rbacv1.ClusterRole, labels metavalidation.LabelSelectorValidationOptions) field.ErrorList {
	var f kinds.Faults
	checkRules(&f, r.Rules, false)
	if r.AggregationRule == nil {
		return f.List()
	}
	at := kinds.NewPath("aggregationRule").Child("clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		f.Required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil")
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		f.Join(metavalidation.ValidateLabelSelector(&r.AggregationRule.ClusterRoleSelectors[i],
			labels, at.Index(i).Field()))
		if _, err := metav1.LabelSelectorAsSelector(&r.AggregationRule.ClusterRoleSelectors[i]); err != nil {
			f.Invalid(at.Index(i), nil, "invalid label selector.")
		}
	}
	return f.List()
}

func validateClusterRoleUpdate(r, old *rbacv1.ClusterRole) field.ErrorList {
	// As upstream, labels may be wrong if those of an old selector were.
	labels := metavalidation.LabelSelectorValidationOptions{}
	if old.AggregationRule != nil {
		for i := range old.AggregationRule.ClusterRoleSelectors {
			if len(metavalidation.ValidateLabelSelector(&old.AggregationRule.ClusterRoleSelectors[i], metavalidation.LabelSelectorValidationOptions{}, nil)) > 0 {
				labels.AllowInvalidLabelValueInSelector = true
			}
		}
	}
	return declaredRules(r.Rules, old.Rules, true).Behind(clusterRole(r, labels))
}

// checkRules: a rule is about resources or about paths.
func checkRules(f *kinds.Faults, rules []rbacv1.PolicyRule, namespaced bool) {
	for i := range rules {
		rule, at := &rules[i], kinds.NewPath("rules").Index(i)
		if len(rule.Verbs) == 0 {
			f.Required(at.Child("verbs"), "verbs must contain at least one value")
		}
		if len(rule.NonResourceURLs) > 0 {
			paths := at.Child("nonResourceURLs")
			if namespaced {
				f.Invalid(paths, rule.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs")
			}
			if len(rule.APIGroups)+len(rule.Resources)+len(rule.ResourceNames) > 0 {
				f.Invalid(paths, rule.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs")
			}
			continue
		}
		if len(rule.APIGroups) == 0 {
			f.Required(at.Child("apiGroups"), "resource rules must supply at least one api group")
		}
		if len(rule.Resources) == 0 {
			f.Required(at.Child("resources"), "resource rules must supply at least one resource")
		}
	}
}

func validateRoleBinding(b *rbacv1.RoleBinding) field.ErrorList {
	return declaredBinding(&b.RoleRef, b.Subjects).Behind(checkBinding(&b.RoleRef, b.Subjects, true))
}

func validateRoleBindingUpdate(b, old *rbacv1.RoleBinding) field.ErrorList {
	hand := append(checkBinding(&b.RoleRef, b.Subjects, true), kinds.Immutable(b.RoleRef, old.RoleRef, kinds.NewPath("roleRef"))...)
	return declaredSubjects(b.Subjects, old.Subjects, declared.Update()).Behind(hand)
}

// declaredBinding are upstream's declared rules about new bindings. In an update
// they say nothing of the role, which cannot change.
func declaredBinding(role *rbacv1.RoleRef, subjects []rbacv1.Subject) *declared.Rules {
	r := declaredSubjects(subjects, nil, declared.Create())
	if role.Name == "" {
		r.Faults.Required(kinds.NewPath("roleRef").Child("name"), "")
	}
	return r
}

func declaredSubjects(now, old []rbacv1.Subject, r *declared.Rules) *declared.Rules {
	self := func(s *[]rbacv1.Subject) []rbacv1.Subject { return *s }
	declared.List(r, &now, &old, kinds.NewPath("subjects"), self, declared.Each[rbacv1.Subject]{Check: func(s, _ *rbacv1.Subject, at *kinds.Path) {
		if s.Name == "" {
			r.Faults.Required(at.Child("name"), "")
		}
	}})
	return r
}

func validateClusterRoleBinding(b *rbacv1.ClusterRoleBinding) field.ErrorList {
	return declaredBinding(&b.RoleRef, b.Subjects).Behind(checkBinding(&b.RoleRef, b.Subjects, false))
}

func validateClusterRoleBindingUpdate(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	hand := append(checkBinding(&b.RoleRef, b.Subjects, false), kinds.Immutable(b.RoleRef, old.RoleRef, kinds.NewPath("roleRef"))...)
	return declaredSubjects(b.Subjects, old.Subjects, declared.Update()).Behind(hand)
}

func checkBinding(role *rbacv1.RoleRef, subjects []rbacv1.Subject, namespaced bool) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("roleRef")
	kinds.OneOf(&f, at.Child("apiGroup"), role.APIGroup, rbacv1.GroupName)
	allowed := []string{"ClusterRole"}
	if namespaced {
		allowed = []string{"Role", "ClusterRole"}
	}
	kinds.Listed(&f, at.Child("kind"), role.Kind, allowed...)
	if f.NonEmpty(at.Child("name"), role.Name) {
		f.Each(at.Child("name"), role.Name, kinds.PathName(role.Name, false))
	}
	for i := range subjects {
		checkSubject(&f, &subjects[i], namespaced, kinds.NewPath("subjects").Index(i))
	}
	return f.List()
}

func checkSubject(f *kinds.Faults, s *rbacv1.Subject, namespaced bool, at *kinds.Path) {
	f.NonEmpty(at.Child("name"), s.Name)
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if s.Name != "" {
			f.Each(at.Child("name"), s.Name, apivalidation.ValidateServiceAccountName(s.Name, false))
		}
		kinds.OneOf(f, at.Child("apiGroup"), s.APIGroup, "")
		if !namespaced {
			f.NonEmpty(at.Child("namespace"), s.Namespace)
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		kinds.OneOf(f, at.Child("apiGroup"), s.APIGroup, rbacv1.GroupName)
	default:
		kinds.Listed(f, at.Child("kind"), s.Kind, rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind)
	}
}
