package authn

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/internal/identity"
)

// Permission is one thing a caller needs to be allowed to impersonate.
type Permission struct {
	Group, Resource, Subresource, Namespace, Name string
}

// Impersonation reads the Impersonate headers of a request and takes them off
// it. wanted is nil when there are none; else needs is everything for which the
// caller must hold the verb "impersonate".
func Impersonation(h http.Header) (wanted *identity.Identity, needs []Permission, err error) {
	user := h.Get(authenticationv1.ImpersonateUserHeader)
	uid := h.Get(authenticationv1.ImpersonateUIDHeader)
	groups := h.Values(authenticationv1.ImpersonateGroupHeader)
	extra := impersonatedExtra(h)
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") {
			h.Del(name)
		}
	}
	if user == "" {
		if uid == "" && len(groups) == 0 && len(extra) == 0 {
			return nil, nil, nil
		}
		return nil, nil, apierrors.NewBadRequest("groups, uid or extra to impersonate without a user to impersonate")
	}
	id := identity.Identity{Name: user, UID: uid, Groups: slices.Clone(groups), Extra: extra}
	needs = append(needs, userPermission(user))
	for _, g := range groups {
		needs = append(needs, Permission{Resource: "groups", Name: g})
	}
	if uid != "" {
		needs = append(needs, Permission{Group: authenticationv1.GroupName, Resource: "uids", Name: uid})
	}
	for key, values := range extra {
		for _, v := range values {
			needs = append(needs, Permission{Group: authenticationv1.GroupName, Resource: "userextras", Subresource: key, Name: v})
		}
	}
	id.Groups = impliedGroups(id)
	return &id, needs, nil
}

func userPermission(user string) Permission {
	if namespace, name, ok := identity.SplitServiceAccount(user); ok {
		return Permission{Resource: "serviceaccounts", Namespace: namespace, Name: name}
	}
	return Permission{Resource: "users", Name: user}
}

// impliedGroups are those the impersonated would have had, had they come
// themselves.
func impliedGroups(id identity.Identity) []string {
	if id.Name == identity.Anonymous {
		if id.In(identity.Unauthenticated) {
			return id.Groups
		}
		return append(id.Groups, identity.Unauthenticated)
	}
	groups := id.Groups
	if namespace, name, ok := identity.SplitServiceAccount(id.Name); ok && len(groups) == 0 {
		return identity.ServiceAccount(namespace, name, "").Groups
	}
	if id.In(identity.Authenticated) || id.In(identity.Unauthenticated) {
		return groups
	}
	return append(groups, identity.Authenticated)
}

// impersonatedExtra reads "Impersonate-Extra-<key>", whose key is lower case and
// percent-encoded.
func impersonatedExtra(h http.Header) map[string][]string {
	extra := map[string][]string{}
	for name, values := range h {
		key, ok := strings.CutPrefix(strings.ToLower(name), strings.ToLower(authenticationv1.ImpersonateUserExtraHeaderPrefix))
		if !ok {
			continue
		}
		if decoded, err := url.PathUnescape(key); err == nil {
			key = decoded
		}
		extra[key] = append(extra[key], values...)
	}
	return extra
}
