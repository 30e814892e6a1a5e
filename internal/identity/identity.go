// Package identity is who makes a request: a name, groups and extra facts, as
// authentication found them. It is plain data shared by everybody who decides
// by it; what a name may do is decided elsewhere.
package identity

import (
	"context"
	"slices"
	"strings"
)

// Groups and name prefixes with a meaning of their own, as upstream spells them.
const (
	// Masters may do everything; no rule can take that away.
	Masters         = "system:masters"
	Authenticated   = "system:authenticated"
	Unauthenticated = "system:unauthenticated"
	ServiceAccounts = "system:serviceaccounts"
	Nodes           = "system:nodes"
	// Anonymous is the name of who did not say who they are.
	Anonymous = "system:anonymous"

	nodePrefix           = "system:node:"
	serviceAccountPrefix = "system:serviceaccount:"
)

// Identity is one caller. It is shared between requests: read-only.
type Identity struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// In says whether the caller is in the group.
func (i Identity) In(group string) bool { return slices.Contains(i.Groups, group) }

// Node is the node that the caller is, if it is one.
func (i Identity) Node() (name string, ok bool) {
	name, ok = strings.CutPrefix(i.Name, nodePrefix)
	return name, ok && name != "" && i.In(Nodes)
}

// ServiceAccount is the identity of a service account.
func ServiceAccount(namespace, name, uid string) Identity {
	return Identity{
		Name:   serviceAccountPrefix + namespace + ":" + name,
		UID:    uid,
		Groups: []string{ServiceAccounts, ServiceAccounts + ":" + namespace, Authenticated},
	}
}

// SplitServiceAccount takes a user's name apart; ok is false when it is not a
// service account's.
func SplitServiceAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, serviceAccountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}

type key struct{}

// With puts the caller into a request's context.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, key{}, id)
}

// From finds the caller in a request's context; ok is false when nobody has been
// authenticated.
func From(ctx context.Context) (id Identity, ok bool) {
	id, ok = ctx.Value(key{}).(Identity)
	return id, ok
}
