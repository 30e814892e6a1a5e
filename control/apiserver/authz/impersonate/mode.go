package impersonate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/internal/identity"
)

const (
	// nodeOfBearer is the extra value that says on which node the pod of a
	// token's bearer runs.
	nodeOfBearer = "authentication.kubernetes.io/node-name"
	// associatedKeys stands for the extra values of a caller whose node has been
	// compared already: authorisation sees the same caller on every node.
	associatedKeys = "authentication.kubernetes.io/associated-node-keys"
	// many groups, or extra values, are asked for as all ("*") first, and one by
	// one only when that is refused.
	many = 4
)

// A mode is one way to be allowed. Its name is "" for the old verb.
type mode struct {
	name    string
	applies func(wanted, caller *identity.Identity) bool
}

// modes in the order in which they are asked.
var modes = []mode{
	{"associated-node", func(wanted, caller *identity.Identity) bool {
		node, ok := nodeNamed(wanted.Name)
		_, _, account := accountNamed(caller.Name)
		at := caller.Extra[nodeOfBearer]
		return ok && account && nameOnly(wanted) && len(at) == 1 && at[0] == node
	}},
	{"arbitrary-node", func(wanted, _ *identity.Identity) bool {
		_, ok := nodeNamed(wanted.Name)
		return ok && nameOnly(wanted)
	}},
	{"serviceaccount", func(wanted, _ *identity.Identity) bool {
		_, _, ok := accountNamed(wanted.Name)
		return ok && nameOnly(wanted)
	}},
	{"user-info", func(wanted, _ *identity.Identity) bool {
		_, node := nodeNamed(wanted.Name)
		_, _, account := accountNamed(wanted.Name)
		return !node && !account
	}},
	{"", func(_, _ *identity.Identity) bool { return true }},
}

func nameOnly(who *identity.Identity) bool {
	return who.UID == "" && len(who.Groups) == 0 && len(who.Extra) == 0
}

// nodeNamed is the node of a user's name, if it can be one.
func nodeNamed(user string) (string, bool) {
	name, ok := strings.CutPrefix(user, identity.NodePrefix)
	return name, ok && len(validation.NameIsDNSSubdomain(name, false)) == 0
}

func (m mode) constraint() string {
	if m.name == "" {
		return ""
	}
	return m.verb()
}

func (m mode) verb() string {
	if m.name == "" {
		return "impersonate"
	}
	return "impersonate:" + m.name
}

// attempt is one mode being asked for one request.
type attempt struct {
	gate   *Gate
	mode   mode
	caller identity.Identity
}

// check asks everything that the mode wants to know. The user is wanted, with the
// groups that are implied.
func (a *attempt) check(ctx context.Context, wanted *identity.Identity, q authz.Attributes) (identity.Identity, error) {
	if a.mode.name == "associated-node" {
		a.caller.Extra = map[string][]string{associatedKeys: slices.Sorted(maps.Keys(a.caller.Extra))}
	}
	if a.mode.name != "" {
		q.Verb = "impersonate-on:" + a.mode.name + ":" + q.Verb
		if err := a.ask(ctx, q); err != nil {
			return identity.Identity{}, err
		}
	}
	user, err := a.name(ctx, *wanted)
	if err != nil {
		return identity.Identity{}, err
	}
	if wanted.UID != "" {
		if err := a.ask(ctx, a.question(authenticationv1.GroupName, "uids", wanted.UID)); err != nil {
			return identity.Identity{}, err
		}
	}
	if err := a.groups(ctx, wanted.Groups); err != nil {
		return identity.Identity{}, err
	}
	if err := a.extra(ctx, wanted.Extra); err != nil {
		return identity.Identity{}, err
	}
	return withImplied(user), nil
}

// ask is nil when the caller may.
func (a *attempt) ask(ctx context.Context, q authz.Attributes) error {
	q.User = a.caller
	began := time.Now()
	decision, reason := a.gate.decide(ctx, q)
	a.gate.metrics.asked(modeOf(a.mode.constraint()), decision == authz.Allow, time.Since(began))
	if decision == authz.Allow {
		return nil
	}
	return authz.Forbidden(q, reason)
}

func (a *attempt) question(group, resource, name string) authz.Attributes {
	return authz.Attributes{User: a.caller, Verb: a.mode.verb(), Group: group, Version: "v1", Resource: resource, Name: name}
}

// ofUsers is the group in which users, groups, nodes and accounts are asked for.
func (a *attempt) ofUsers() string {
	if a.mode.name == "" {
		return ""
	}
	return authenticationv1.GroupName
}

// name asks for the user's name, and gives nodes and service accounts the groups
// that they always have.
func (a *attempt) name(ctx context.Context, user identity.Identity) (identity.Identity, error) {
	q := a.question(a.ofUsers(), "users", user.Name)
	if node, ok := nodeNamed(user.Name); ok && a.mode.name != "" {
		q.Resource, q.Name = "nodes", node
		user.Groups = []string{identity.Nodes}
		if a.mode.name == "associated-node" {
			q.Name = "*" // which node it is has been compared, and is no part of the permission
		}
	}
	if namespace, name, ok := accountNamed(user.Name); ok {
		q.Resource, q.Namespace, q.Name = "serviceaccounts", namespace, name
		if len(user.Groups) == 0 {
			user.Groups = identity.ServiceAccount(namespace, name, "").Groups
		}
	}
	return user, a.ask(ctx, q)
}

func (a *attempt) groups(ctx context.Context, groups []string) error {
	q := a.question(a.ofUsers(), "groups", "")
	if a.mode.name != "" {
		if slices.Contains(groups, "") {
			return authz.Forbidden(q, "impersonating the empty string group is not allowed")
		}
		if slices.Contains(groups, identity.Masters) {
			q.Name = identity.Masters
			return authz.Forbidden(q, "impersonating the system:masters group is not allowed")
		}
		if q.Name = "*"; len(groups) >= many && a.ask(ctx, q) == nil {
			return nil
		}
	}
	for _, group := range groups {
		q.Name = group
		if err := a.ask(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

func (a *attempt) extra(ctx context.Context, extra map[string][]string) error {
	q := a.question(authenticationv1.GroupName, "userextras", "")
	keys := slices.Sorted(maps.Keys(extra))
	if a.mode.name != "" {
		if err := validExtra(keys, extra); err != nil {
			return authz.Forbidden(q, err.Error())
		}
		values := 0
		for _, all := range extra {
			values += len(all)
		}
		if q.Subresource, q.Name = "*", "*"; values >= many && a.ask(ctx, q) == nil {
			return nil
		}
	}
	for _, key := range keys {
		q.Subresource = key
		for _, value := range extra[key] {
			q.Name = value
			if err := a.ask(ctx, q); err != nil {
				return err
			}
		}
	}
	return nil
}

// validExtra is what the constrained modes want of extra values; the old verb takes
// any.
func validExtra(keys []string, extra map[string][]string) error {
	for _, key := range keys {
		if key == "" {
			return errors.New("impersonating the empty string key in extra is not allowed")
		}
		if err := utilvalidation.IsDomainPrefixedPath(field.NewPath("extra", "key"), key).ToAggregate(); err != nil {
			return fmt.Errorf("impersonating an invalid key in extra is not allowed: %w", err)
		}
		switch {
		case key != strings.ToLower(key):
			return fmt.Errorf("impersonating a non-lowercase key in extra is not allowed: %q", key)
		case len(extra[key]) == 0:
			return errors.New("impersonating empty values in extra is not allowed")
		case slices.Contains(extra[key], ""):
			return errors.New("impersonating the empty string value in extra is not allowed")
		}
	}
	return nil
}

// accountNamed takes the name of a service account apart. One that no account can have
// is anybody's.
func accountNamed(user string) (namespace, name string, ok bool) {
	namespace, name, ok = identity.SplitServiceAccount(user)
	return namespace, name, ok && len(validation.ValidateNamespaceName(namespace, false)) == 0 &&
		len(validation.ValidateServiceAccountName(name, false)) == 0
}
