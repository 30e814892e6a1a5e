// Package authz answers "may you?": role-based access control exactly as
// upstream evaluates it, the roles and bindings every cluster starts with, the
// checks that nobody grants more than they hold, and the reviews with which
// clients ask beforehand.
//
// Facts: k8s.io/api/rbac/v1 and the RBAC page of the Kubernetes reference.
package authz

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/identity"
)

// Attributes is one question: may User do Verb on this?
type Attributes struct {
	User identity.Identity
	// Verb is the API's: get, list, watch, create, update, patch, delete,
	// deletecollection, or one of the special ones; for a Path, the lower-case
	// HTTP method.
	Verb        string
	Group       string
	Version     string
	Resource    string
	Subresource string
	Namespace   string
	Name        string
	// FieldSelector and LabelSelector are those of a list, watch or deletecollection.
	FieldSelector, LabelSelector string
	// Path is set for what is no resource ("/metrics"); the fields above, but
	// for User and Verb, are then empty.
	Path string
}

// Policy is where roles and bindings are read from: the watch caches. All
// methods must be cheap and safe for concurrent use; objects are read-only.
type Policy interface {
	// Version changes whenever any role or binding has changed.
	Version() int64
	ClusterRoles() []*rbacv1.ClusterRole
	Roles() []*rbacv1.Role
	ClusterRoleBindings() []*rbacv1.ClusterRoleBinding
	RoleBindings() []*rbacv1.RoleBinding
}

// Another is a further authorizer that may allow what roles do not: the node
// authorizer.
type Another interface {
	Allows(ctx context.Context, q Attributes) (allowed bool, reason string)
}

// Authorizer decides. It is safe for concurrent use, and a prometheus.Collector of
// its sources' decisions.
type Authorizer struct {
	policy Policy
	index  atomic.Pointer[index]
	order  atomic.Pointer[[]counted]
	// decisions are upstream's apiserver_authorization_decisions_total.
	decisions *prometheus.CounterVec
}

// New returns an Authorizer over policy, which asks others before the roles.
func New(policy Policy, others ...Another) *Authorizer {
	a := &Authorizer{policy: policy, decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_authorization_decisions_total",
		Help: "Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision."}, []string{"type", "name", "decision"})}
	var order []Source
	for _, other := range others {
		order = append(order, adapted{other})
	}
	a.Use(append(order, roles{a}))
	return a
}

// Authorize decides one question. The reason says why it is allowed, or which
// roles could not be found when it is not; it is often empty then.
func (a *Authorizer) Authorize(ctx context.Context, q Attributes) (allowed bool, reason string) {
	decision, reason := a.Decide(ctx, q)
	return decision == Allow, reason
}

// current is the index of the policy as it is now, rebuilt when it has changed.
// Two callers may rebuild at once: both results are right.
func (a *Authorizer) current() *index {
	version := a.policy.Version()
	if have := a.index.Load(); have != nil && have.version == version {
		return have
	}
	made := newIndex(version, a.policy)
	a.index.Store(made)
	return made
}

// rulesFor gives every rule that user has in namespace, and the roles bound to
// them that do not exist. Masters have theirs whatever is bound to them, and what is
// bound to them beside it, which is what a listing by upstream shows.
func (a *Authorizer) rulesFor(user identity.Identity, namespace string) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	var missing []error
	masters := user.In(identity.Masters)
	if masters {
		rules = fullAuthority()
	}
	a.current().each(&user, namespace, func(h *holdings) bool {
		for _, g := range h.grants {
			if g.missing != nil {
				missing = append(missing, g.missing)
			}
			if masters && equality.Semantic.DeepEqual(g.rules, fullAuthority()) {
				continue // cluster-admin, said already
			}
			rules = append(rules, g.rules...)
		}
		return true
	})
	return rules, errors.Join(missing...)
}

// fullAuthority is what cluster-admin holds.
func fullAuthority() []rbacv1.PolicyRule {
	all := []string{"*"}
	return []rbacv1.PolicyRule{
		{Verbs: all, APIGroups: all, Resources: all},
		{Verbs: all, NonResourceURLs: all},
	}
}

// Forbidden is the 403 that a refused client reads; kubectl and tests parse it.
func Forbidden(q Attributes, reason string) error {
	text := fmt.Sprintf("User %q cannot %s path %q", q.User.Name, q.Verb, q.Path)
	if q.Path == "" {
		resource := q.Resource
		if q.Subresource != "" {
			resource += "/" + q.Subresource
		}
		where := "at the cluster scope"
		if q.Namespace != "" {
			where = fmt.Sprintf("in the namespace %q", q.Namespace)
		}
		text = fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", q.User.Name, q.Verb, resource, q.Group, where)
	}
	if reason != "" {
		text += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: q.Group, Resource: q.Resource}, q.Name, errors.New(text))
}
