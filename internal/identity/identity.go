// Package identity says who makes a request. Authentication produces an
// Identity, authorisation and admission judge it, audit writes it down; none of
// them needs to know where it came from.
package identity

import (
	"context"
	"slices"
)

// The names and groups that have a meaning of their own, as upstream spells them.
const (
	Anonymous       = "system:anonymous"
	Masters         = "system:masters"
	Authenticated   = "system:authenticated"
	Unauthenticated = "system:unauthenticated"
	// ServiceAccountPrefix precedes "namespace:name" in a service account's name.
	ServiceAccountPrefix = "system:serviceaccount:"
	// NodePrefix precedes the node's name in an agent's name.
	NodePrefix = "system:node:"
	Nodes      = "system:nodes"
	// Agents are those nodes whose agent is ours, which brings the service proxy, DNS and
	// the routes with it: they may read what those need, which other kubelets may not.
	Agents = "sampan:agents"
)

// Identity is one authenticated user. It is read-only once made: many requests
// share it.
type Identity struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string
}

// In reports whether the user is a member of group.
func (i Identity) In(group string) bool { return slices.Contains(i.Groups, group) }

type key struct{}

// With returns a context that carries who makes the request.
func With(ctx context.Context, who Identity) context.Context {
	return context.WithValue(ctx, key{}, who)
}

// From returns who makes the request; ok is false when nobody has said.
func From(ctx context.Context) (who Identity, ok bool) {
	who, ok = ctx.Value(key{}).(Identity)
	return who, ok
}
