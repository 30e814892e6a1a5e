package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validateRole(r *rbacv1.Role) field.ErrorList {
	var f kinds.Faults
	checkRules(&f, r.Rules, true)
	return f.List()
}

func validateRoleUpdate(r, _ *rbacv1.Role) field.ErrorList { return validateRole(r) }

func validateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	var f kinds.Faults
	checkRules(&f, r.Rules, false)
	if r.AggregationRule == nil {
		return f.List()
	}
	at := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		f.Required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil")
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		f.Join(metavalidation.ValidateLabelSelector(&r.AggregationRule.ClusterRoleSelectors[i],
			metavalidation.LabelSelectorValidationOptions{}, at.Index(i)))
	}
	return f.List()
}

func validateClusterRoleUpdate(r, _ *rbacv1.ClusterRole) field.ErrorList {
	return validateClusterRole(r)
}

// checkRules: a rule is about resources or about paths.
func checkRules(f *kinds.Faults, rules []rbacv1.PolicyRule, namespaced bool) {
	for i := range rules {
		rule, at := &rules[i], field.NewPath("rules").Index(i)
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
	return checkBinding(&b.RoleRef, b.Subjects, true)
}

func validateRoleBindingUpdate(b, old *rbacv1.RoleBinding) field.ErrorList {
	return append(validateRoleBinding(b), kinds.Immutable(b.RoleRef, old.RoleRef, field.NewPath("roleRef"))...)
}

func validateClusterRoleBinding(b *rbacv1.ClusterRoleBinding) field.ErrorList {
	return checkBinding(&b.RoleRef, b.Subjects, false)
}

func validateClusterRoleBindingUpdate(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	return append(validateClusterRoleBinding(b), kinds.Immutable(b.RoleRef, old.RoleRef, field.NewPath("roleRef"))...)
}

func checkBinding(role *rbacv1.RoleRef, subjects []rbacv1.Subject, namespaced bool) field.ErrorList {
	var f kinds.Faults
	at := field.NewPath("roleRef")
	kinds.OneOf(&f, at.Child("apiGroup"), role.APIGroup, rbacv1.GroupName)
	allowed := []string{"ClusterRole"}
	if namespaced {
		allowed = append(allowed, "Role")
	}
	kinds.OneOf(&f, at.Child("kind"), role.Kind, allowed...)
	if f.NonEmpty(at.Child("name"), role.Name) {
		f.Each(at.Child("name"), role.Name, kinds.PathName(role.Name, false))
	}
	for i := range subjects {
		checkSubject(&f, &subjects[i], namespaced, field.NewPath("subjects").Index(i))
	}
	return f.List()
}

func checkSubject(f *kinds.Faults, s *rbacv1.Subject, namespaced bool, at *field.Path) {
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
		kinds.OneOf(f, at.Child("kind"), s.Kind, rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind)
	}
}
