package cel

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// Authority answers the expressions' question what somebody may. It remembers its
// answers: make one for each request, and use it in one goroutine.
type Authority struct {
	who   identity.Identity
	at    target.Target
	ask   *authz.Authorizer
	known map[string]bool
}

// NewAuthority answers for who, who asks about at; its namespace is the object's
// own for a Namespace.
func NewAuthority(who identity.Identity, at target.Target, ask *authz.Authorizer) *Authority {
	return &Authority{who: who, at: at, ask: ask, known: map[string]bool{}}
}

// GetName is the requested object's name.
func (a *Authority) GetName() string { return a.at.Name }

// GetNamespace is the requested object's namespace.
func (a *Authority) GetNamespace() string { return a.at.Namespace }

// GetResource is the requested resource.
func (a *Authority) GetResource() schema.GroupVersionResource { return a.at.Resource }

// GetSubresource is the requested subresource.
func (a *Authority) GetSubresource() string { return a.at.Subresource }

func (a *Authority) user() user.Info {
	return &user.DefaultInfo{Name: a.who.Name, UID: a.who.UID, Groups: a.who.Groups, Extra: a.who.Extra}
}

// Authorize answers one question of an expression.
func (a *Authority) Authorize(ctx context.Context, q authorizer.Attributes) (authorizer.Decision, string, error) {
	asked := authz.Attributes{Verb: q.GetVerb()}
	if who := q.GetUser(); who != nil {
		asked.User = identity.Identity{Name: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(), Extra: who.GetExtra()}
	}
	if q.IsResourceRequest() {
		asked.Group, asked.Version, asked.Resource = q.GetAPIGroup(), q.GetAPIVersion(), q.GetResource()
		asked.Subresource, asked.Namespace, asked.Name = q.GetSubresource(), q.GetNamespace(), q.GetName()
		if wanted, err := q.GetFieldSelector(); err == nil {
			parts := make([]string, 0, len(wanted))
			for _, r := range wanted {
				parts = append(parts, r.Field+string(r.Operator)+r.Value)
			}
			asked.FieldSelector = strings.Join(parts, ",")
		}
	} else {
		asked.Path = q.GetPath()
	}
	key := strings.Join([]string{asked.User.Name, strings.Join(asked.User.Groups, ","), asked.Verb, asked.Group, asked.Version, asked.Resource, asked.Subresource,
		asked.Namespace, asked.Name, asked.FieldSelector, asked.Path}, "\x00")
	allowed, known := a.known[key]
	if !known {
		allowed, _ = a.ask.Authorize(ctx, asked)
		a.known[key] = allowed
	}
	if allowed {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}
