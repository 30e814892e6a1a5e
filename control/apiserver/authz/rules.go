package authz

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/identity"
)

// A grant is one binding with the rules of its role, for one of its subjects.
type grant struct {
	rules []rbacv1.PolicyRule
	// missing says that the role does not exist.
	missing error
	binding string
	role    string
	subject rbacv1.Subject
	reason  sync.Once
	text    string
}

// String is the reason that audit and reviews show.
func (g *grant) String() string {
	g.reason.Do(func() { g.text = g.describe() })
	return g.text
}

func (g *grant) describe() string {
	who := fmt.Sprintf("%s %q", g.subject.Kind, g.subject.Name)
	if g.subject.Kind == rbacv1.ServiceAccountKind {
		who = fmt.Sprintf("%s %q", g.subject.Kind, g.subject.Name+"/"+g.subject.Namespace)
	}
	return fmt.Sprintf("RBAC: allowed by %s of %s to %s", g.binding, g.role, who)
}

// allows says whether one rule permits what is asked.
func allows(r *rbacv1.PolicyRule, q *Attributes) bool {
	if !has(r.Verbs, q.Verb) {
		return false
	}
	if q.Path != "" {
		return slices.ContainsFunc(r.NonResourceURLs, func(p string) bool { return pathMatches(p, q.Path) })
	}
	return has(r.APIGroups, q.Group) && resourceMatches(r.Resources, q) &&
		(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, q.Name))
}

// has says whether set holds want or everything.
func has(set []string, want string) bool {
	return slices.Contains(set, "*") || slices.Contains(set, want)
}

// resourceMatches: "*" is all resources and subresources, "*/scale" the
// subresource of all; "pods" alone does not cover "pods/log".
func resourceMatches(set []string, q *Attributes) bool {
	for _, r := range set {
		switch {
		case r == "*":
			return true
		case q.Subresource == "" && r == q.Resource:
			return true
		case q.Subresource == "":
		default:
			if of, sub, ok := strings.Cut(r, "/"); ok && sub == q.Subresource && (of == q.Resource || of == "*") {
				return true
			}
		}
	}
	return false
}

// pathMatches: a trailing "*" covers everything below.
func pathMatches(pattern, path string) bool {
	if pattern == path {
		return true
	}
	return strings.HasSuffix(pattern, "*") && strings.HasPrefix(path, strings.TrimRight(pattern, "*"))
}

// index finds the grants of a user: by what is bound, not by looking at every
// binding for every request.
type index struct {
	version int64
	cluster map[subject]*holdings
	// within holds the grants of each namespace's bindings.
	within map[string]map[subject]*holdings
}

// subject is a user or a group; service accounts are users.
type subject struct {
	group bool
	name  string
}

func newIndex(version int64, p Policy) *index {
	clusterRoles := map[string][]rbacv1.PolicyRule{}
	for _, r := range p.ClusterRoles() {
		clusterRoles[r.Name] = r.Rules
	}
	roles := map[string][]rbacv1.PolicyRule{}
	for _, r := range p.Roles() {
		roles[r.Namespace+"/"+r.Name] = r.Rules
	}
	x := &index{version: version, cluster: map[subject]*holdings{}, within: map[string]map[subject]*holdings{}}
	for _, b := range p.ClusterRoleBindings() {
		g := &grant{binding: fmt.Sprintf("ClusterRoleBinding %q", b.Name)}
		g.resolve(b.RoleRef, "", clusterRoles, nil)
		add(x.cluster, g, b.Subjects, "")
	}
	for _, b := range p.RoleBindings() {
		g := &grant{binding: fmt.Sprintf("RoleBinding %q", b.Name+"/"+b.Namespace)}
		g.resolve(b.RoleRef, b.Namespace, clusterRoles, roles)
		if x.within[b.Namespace] == nil {
			x.within[b.Namespace] = map[subject]*holdings{}
		}
		add(x.within[b.Namespace], g, b.Subjects, b.Namespace)
	}
	return x
}

// resolve finds the role's rules, or says that there is no such role.
func (g *grant) resolve(ref rbacv1.RoleRef, namespace string, clusterRoles, roles map[string][]rbacv1.PolicyRule) {
	var found bool
	resource := "clusterroles"
	g.role = fmt.Sprintf("%s %q", ref.Kind, ref.Name)
	switch ref.Kind {
	case "ClusterRole":
		g.rules, found = clusterRoles[ref.Name]
	case "Role":
		resource = "roles"
		g.role = fmt.Sprintf("%s %q", ref.Kind, ref.Name+"/"+namespace)
		g.rules, found = roles[namespace+"/"+ref.Name]
	}
	if !found {
		g.missing = apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: resource}, ref.Name)
		if ref.Kind != "ClusterRole" && ref.Kind != "Role" {
			g.missing = fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
		}
	}
}

// add files the grant under each of its subjects. A service account without a
// namespace is one of the binding's own.
func add(into map[subject]*holdings, g *grant, subjects []rbacv1.Subject, namespace string) {
	for _, s := range subjects {
		var key subject
		switch s.Kind {
		case rbacv1.UserKind:
			key = subject{name: s.Name}
		case rbacv1.GroupKind:
			key = subject{group: true, name: s.Name}
		case rbacv1.ServiceAccountKind:
			if s.Namespace == "" {
				s.Namespace = namespace
			}
			if s.Namespace == "" {
				continue
			}
			key = subject{name: identity.ServiceAccount(s.Namespace, s.Name, "").Name}
		default:
			continue
		}
		if into[key] == nil {
			into[key] = &holdings{}
		}
		into[key].grants = append(into[key].grants, &grant{rules: g.rules, missing: g.missing, binding: g.binding, role: g.role, subject: s})
	}
}

// each calls visit with what user holds everywhere, and in namespace unless that is
// "", until it returns false.
func (x *index) each(user *identity.Identity, namespace string, visit func(*holdings) bool) {
	for _, in := range [...]map[subject]*holdings{x.cluster, x.within[namespace]} {
		if len(in) == 0 {
			continue
		}
		if h := in[subject{name: user.Name}]; h != nil && !visit(h) {
			return
		}
		for _, group := range user.Groups {
			if h := in[subject{group: true, name: group}]; h != nil && !visit(h) {
				return
			}
		}
	}
}
