package flowcontrol

import (
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// verbs are those that a rule may name.
var verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

func validateSchema(s *flowcontrolv1.FlowSchema) field.ErrorList {
	var f kinds.Faults
	spec := kinds.NewPath("spec")
	checkPrecedence(&f, s, spec.Child("matchingPrecedence"))
	if m := s.Spec.DistinguisherMethod; m != nil && m.Type != byUser && m.Type != byNamespace {
		f.NotSupported(spec.Child("distinguisherMethod").Child("type"), m, string(byNamespace), string(byUser))
	}
	at := spec.Child("priorityLevelConfiguration").Child("name")
	if name := s.Spec.PriorityLevelConfiguration.Name; name == "" {
		f.Required(at, "must reference a priority level")
	} else {
		f.Each(at, name, apivalidation.NameIsDNSSubdomain(name, false))
	}
	for i := range s.Spec.Rules {
		checkRules(&f, &s.Spec.Rules[i], spec.Child("rules").Index(i))
	}
	for _, fixed := range Mandatory().Schemas {
		if fixed.Name == s.Name && !kinds.Same(fixed.Spec, s.Spec) {
			f.Invalid(spec, s.Spec, fmt.Sprintf("spec of '%s' must equal the fixed value", s.Name))
		}
	}
	f.Join(validateSchemaStatus(s, nil))
	return f.List()
}

func validateSchemaUpdate(s, _ *flowcontrolv1.FlowSchema) field.ErrorList { return validateSchema(s) }

func validateSchemaStatus(s, _ *flowcontrolv1.FlowSchema) field.ErrorList {
	return checkConditions(s.Status.Conditions, func(c flowcontrolv1.FlowSchemaCondition) string { return string(c.Type) })
}

// checkConditions wants each condition to have a type, and each type once.
func checkConditions[C any](conditions []C, typeOf func(C) string) field.ErrorList {
	var f kinds.Faults
	seen := map[string]bool{}
	for i, c := range conditions {
		at, name := kinds.NewPath("status").Child("conditions").Index(i).Child("type"), typeOf(c)
		if seen[name] {
			f.Duplicate(at, name)
		}
		seen[name] = true
		f.NonEmpty(at, name)
	}
	return f.List()
}

func checkPrecedence(f *kinds.Faults, s *flowcontrolv1.FlowSchema, at *kinds.Path) {
	p := s.Spec.MatchingPrecedence
	if p <= 0 {
		f.Invalid(at, p, "must be a positive value")
	}
	if p > flowcontrolv1.FlowSchemaMaxMatchingPrecedence {
		f.Invalid(at, p, fmt.Sprintf("must not be greater than %v", flowcontrolv1.FlowSchemaMaxMatchingPrecedence))
	}
	if p == 1 && s.Name != "exempt" {
		f.Invalid(at, p, "only the schema named 'exempt' may have matchingPrecedence 1")
	}
}

func checkRules(f *kinds.Faults, r *flowcontrolv1.PolicyRulesWithSubjects, at *kinds.Path) {
	if len(r.Subjects) == 0 {
		f.Required(at.Child("subjects"), "subjects must contain at least one value")
	}
	for i := range r.Subjects {
		checkSubject(f, &r.Subjects[i], at.Child("subjects").Index(i))
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		f.Required(at, "at least one of resourceRules and nonResourceRules has to be non-empty")
	}
	for i := range r.ResourceRules {
		checkResourceRule(f, &r.ResourceRules[i], at.Child("resourceRules").Index(i))
	}
	for i := range r.NonResourceRules {
		checkPathRule(f, &r.NonResourceRules[i], at.Child("nonResourceRules").Index(i))
	}
}

func checkSubject(f *kinds.Faults, s *flowcontrolv1.Subject, at *kinds.Path) {
	forbid := func(there bool, child string, kind flowcontrolv1.SubjectKind) {
		if there && s.Kind != kind {
			f.Forbidden(at.Child(child), fmt.Sprintf("%s is forbidden when subject kind is not '%s'", child, kind))
		}
	}
	switch s.Kind {
	case flowcontrolv1.SubjectKindServiceAccount:
		checkAccount(f, s.ServiceAccount, at.Child("serviceAccount"))
	case flowcontrolv1.SubjectKindUser:
		if s.User == nil {
			f.Required(at.Child("user"), "user is required when subject kind is 'User'")
		} else {
			f.NonEmpty(at.Child("user").Child("name"), s.User.Name)
		}
	case flowcontrolv1.SubjectKindGroup:
		if s.Group == nil {
			f.Required(at.Child("group"), "group is required when subject kind is 'Group'")
		} else {
			f.NonEmpty(at.Child("group").Child("name"), s.Group.Name)
		}
	default:
		kinds.OneOf(f, at.Child("kind"), s.Kind, flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser)
		return
	}
	forbid(s.ServiceAccount != nil, "serviceAccount", flowcontrolv1.SubjectKindServiceAccount)
	forbid(s.User != nil, "user", flowcontrolv1.SubjectKindUser)
	forbid(s.Group != nil, "group", flowcontrolv1.SubjectKindGroup)
}

func checkAccount(f *kinds.Faults, a *flowcontrolv1.ServiceAccountSubject, at *kinds.Path) {
	if a == nil {
		f.Required(at, "serviceAccount is required when subject kind is 'ServiceAccount'")
		return
	}
	if f.NonEmpty(at.Child("name"), a.Name) && a.Name != flowcontrolv1.NameAll {
		f.Each(at.Child("name"), a.Name, apivalidation.ValidateServiceAccountName(a.Name, false))
	}
	if a.Namespace == "" {
		f.Required(at.Child("namespace"), "must specify namespace for service account")
		return
	}
	f.Each(at.Child("namespace"), a.Namespace, apivalidation.ValidateNamespaceName(a.Namespace, false))
}

func checkVerbs(f *kinds.Faults, list []string, at *kinds.Path) {
	switch {
	case len(list) == 0:
		f.Required(at, "verbs must contain at least one value")
	case slices.Contains(list, flowcontrolv1.VerbAll):
		if len(list) > 1 {
			f.Invalid(at, list, "if '*' is present, must not specify other verbs")
		}
	case slices.ContainsFunc(list, func(v string) bool { return !slices.Contains(verbs, v) }):
		f.Join(field.ErrorList{field.NotSupported(at.Field(), list, verbs)})
	}
}

func checkResourceRule(f *kinds.Faults, r *flowcontrolv1.ResourcePolicyRule, at *kinds.Path) {
	checkVerbs(f, r.Verbs, at.Child("verbs"))
	switch {
	case len(r.APIGroups) == 0:
		f.Required(at.Child("apiGroups"), "resource rules must supply at least one api group")
	case len(r.APIGroups) > 1 && slices.Contains(r.APIGroups, flowcontrolv1.APIGroupAll):
		f.Invalid(at.Child("apiGroups"), r.APIGroups, "if '*' is present, must not specify other api groups")
	}
	switch {
	case len(r.Resources) == 0:
		f.Required(at.Child("resources"), "resource rules must supply at least one resource")
	case len(r.Resources) > 1 && slices.Contains(r.Resources, flowcontrolv1.ResourceAll):
		f.Invalid(at.Child("resources"), r.Resources, "if '*' is present, must not specify other resources")
	}
	spaces := at.Child("namespaces")
	switch {
	case len(r.Namespaces) == 0 && !r.ClusterScope:
		f.Required(spaces, "resource rules that are not cluster scoped must supply at least one namespace")
	case slices.Contains(r.Namespaces, flowcontrolv1.NamespaceEvery):
		if len(r.Namespaces) > 1 {
			f.Invalid(spaces, r.Namespaces, "if '*' is present, must not specify other namespaces")
		}
	default:
		for i, name := range r.Namespaces {
			for _, problem := range apivalidation.ValidateNamespaceName(name, false) {
				f.Invalid(spaces.Index(i), name, "each member of this list must be '*' or a DNS-1123 label; "+problem)
			}
		}
	}
}

func checkPathRule(f *kinds.Faults, r *flowcontrolv1.NonResourcePolicyRule, at *kinds.Path) {
	checkVerbs(f, r.Verbs, at.Child("verbs"))
	paths := at.Child("nonResourceURLs")
	switch {
	case len(r.NonResourceURLs) == 0:
		f.Required(paths, "nonResourceURLs must contain at least one value")
	case slices.Contains(r.NonResourceURLs, flowcontrolv1.NonResourceAll):
		if len(r.NonResourceURLs) > 1 {
			f.Invalid(paths, r.NonResourceURLs, "if '*' is present, must not specify other non-resource URLs")
		}
	default:
		for i, path := range r.NonResourceURLs {
			if problem := badPath(path); problem != "" {
				f.Invalid(paths.Index(i), path, problem)
			}
		}
	}
}

// badPath says what is wrong with a path of a rule, or "". A "*" may only stand
// for the rest of the path.
func badPath(path string) string {
	stars := strings.Count(path, "*")
	switch {
	case path == "":
		return "must not be empty"
	case !strings.HasPrefix(path, "/"):
		return "must start with slash"
	case strings.Contains(path, " "):
		return "must not contain white-space"
	case strings.Contains(path, "//"):
		return "must not contain double slash"
	case stars > 1 || stars == 1 && !strings.HasSuffix(path, "/*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}
