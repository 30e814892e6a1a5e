package authz

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/sampan-dev/sampan/internal/identity"
)

// CheckEscalation refuses a write of a role that grants, or of a binding that
// hands out, more than the writer holds; old is nil on create. Other objects
// pass. The verbs "escalate" on the role and "bind" on the role referred to are
// the ways around, as upstream has them.
func (a *Authorizer) CheckEscalation(ctx context.Context, user identity.Identity, obj, old runtime.Object) error {
	if user.In(identity.Masters) || OnlyForCollector(obj, old) {
		return nil
	}
	switch o := obj.(type) {
	case *rbacv1.ClusterRole:
		was, _ := old.(*rbacv1.ClusterRole)
		return a.checkClusterRole(ctx, user, o, was)
	case *rbacv1.Role:
		return a.checkRules(ctx, user, write{"roles", o.Namespace, o.Name}, o.Rules)
	case *rbacv1.ClusterRoleBinding:
		return a.checkBinding(ctx, user, write{"clusterrolebindings", "", o.Name}, o.RoleRef)
	case *rbacv1.RoleBinding:
		return a.checkBinding(ctx, user, write{"rolebindings", o.Namespace, o.Name}, o.RoleRef)
	}
	return nil
}

// write is which object is being written.
type write struct{ resource, namespace, name string }

func (w write) forbidden(err error) error {
	return apierrors.NewForbidden(schema.GroupResource{Group: rbacv1.GroupName, Resource: w.resource}, w.name, err)
}

func (a *Authorizer) checkClusterRole(ctx context.Context, user identity.Identity, now, was *rbacv1.ClusterRole) error {
	w := write{"clusterroles", "", now.Name}
	if err := a.checkRules(ctx, user, w, now.Rules); err != nil {
		return err
	}
	if !aggregates(now) && (was == nil || !aggregates(was)) {
		return nil
	}
	if a.checkRules(ctx, user, w, fullAuthority()) != nil {
		return w.forbidden(errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil
}

func aggregates(r *rbacv1.ClusterRole) bool {
	return r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}

// checkRules lets pass who may escalate, or already holds all of the rules.
func (a *Authorizer) checkRules(ctx context.Context, user identity.Identity, w write, rules []rbacv1.PolicyRule) error {
	may, _ := a.Authorize(ctx, Attributes{User: user, Verb: "escalate", Group: rbacv1.GroupName, Version: "*",
		Resource: w.resource, Namespace: w.namespace, Name: w.name})
	if may {
		return nil
	}
	return a.holds(user, w, rules)
}

// checkBinding lets pass who may bind the role, or already holds all it grants.
func (a *Authorizer) checkBinding(ctx context.Context, user identity.Identity, w write, ref rbacv1.RoleRef) error {
	q := Attributes{User: user, Verb: "bind", Group: ref.APIGroup, Version: "*", Namespace: w.namespace, Name: ref.Name}
	q.Resource = "roles"
	if ref.Kind == "ClusterRole" {
		q.Resource = "clusterroles"
	}
	if may, _ := a.Authorize(ctx, q); may {
		return nil
	}
	var g grant
	clusterRoles, roles := map[string][]rbacv1.PolicyRule{}, map[string][]rbacv1.PolicyRule{}
	for _, r := range a.policy.ClusterRoles() {
		clusterRoles[r.Name] = r.Rules
	}
	for _, r := range a.policy.Roles() {
		roles[r.Namespace+"/"+r.Name] = r.Rules
	}
	if g.resolve(ref, w.namespace, clusterRoles, roles); g.missing != nil {
		// What is missing goes by the resource that is written, as upstream's does.
		return apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: w.resource}, ref.Name)
	}
	return a.holds(user, w, g.rules)
}

func (a *Authorizer) holds(user identity.Identity, w write, rules []rbacv1.PolicyRule) error {
	held, unresolved := a.rulesFor(user, w.namespace)
	covered, missing := validation.Covers(held, rules)
	if covered {
		return nil
	}
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		user.Name, user.Groups, strings.Join(describe(missing), "\n"))
	if unresolved != nil {
		text += fmt.Sprintf("; resolution errors: [%v]", unresolved)
	}
	return w.forbidden(errors.New(text))
}

// describe writes single-verb rules for a person: those that differ only in
// their verb become one line.
func describe(rules []rbacv1.PolicyRule) []string {
	verbs := map[string][]string{}
	for _, r := range rules {
		of := compact(r)
		verbs[of] = append(verbs[of], r.Verbs...)
	}
	lines := make([]string, 0, len(verbs))
	for of, v := range verbs {
		lines = append(lines, fmt.Sprintf("{%s, Verbs:%q}", of, v))
	}
	slices.Sort(lines)
	return lines
}

func compact(r rbacv1.PolicyRule) string {
	var parts []string
	for _, p := range []struct {
		name string
		set  []string
	}{{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"ResourceNames", r.ResourceNames}, {"NonResourceURLs", r.NonResourceURLs}} {
		if len(p.set) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", p.name, p.set))
		}
	}
	return strings.Join(parts, ", ")
}

// OnlyForCollector says whether an update is such as the collector makes: an update that changes nothing but owner references and
// finalizers must pass, or the garbage collector could not do its work.
func OnlyForCollector(obj, old runtime.Object) bool {
	if old == nil || reflect.ValueOf(old).IsNil() {
		return false
	}
	now, ok1 := obj.DeepCopyObject().(metav1.Object)
	was, ok2 := old.DeepCopyObject().(metav1.Object)
	if !ok1 || !ok2 {
		return false
	}
	now.SetOwnerReferences(was.GetOwnerReferences())
	now.SetFinalizers(was.GetFinalizers())
	now.SetManagedFields(was.GetManagedFields())
	return equality.Semantic.DeepEqual(now, was)
}
