package authz

import (
	"context"
	"fmt"
	"strings"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/sampan-dev/sampan/internal/identity"
)

// Decision is what a Source says to a question.
type Decision int

// The decisions. What nobody has an opinion on is refused.
const (
	NoOpinion Decision = iota
	Allow
	Deny
)

// Source is one of the authorities that are asked in turn; the first with an
// opinion decides. Safe for concurrent use.
type Source interface {
	Decide(ctx context.Context, q Attributes) (Decision, string)
}

// Use sets the sources and their order, from now on. Before all of them,
// administrators are allowed everything.
func (a *Authorizer) Use(order []Source) { a.order.Store(&order) }

// Decide asks the sources. The reason is that of the decision or, when nobody has
// an opinion, what all of them said.
func (a *Authorizer) Decide(ctx context.Context, q Attributes) (Decision, string) {
	if q.User.In(identity.Masters) {
		return Allow, ""
	}
	var reasons []string
	for _, source := range *a.order.Load() {
		decision, reason := source.Decide(ctx, q)
		if decision != NoOpinion {
			return decision, reason
		}
		if reason != "" {
			reasons = append(reasons, reason)
		}
	}
	return NoOpinion, strings.Join(reasons, ", ")
}

// adapted makes a Source of one that only allows.
type adapted struct{ Another }

func (s adapted) Decide(ctx context.Context, q Attributes) (Decision, string) {
	allowed, reason := s.Allows(ctx, q)
	if allowed {
		return Allow, reason
	}
	return NoOpinion, reason
}

// roles are the Authorizer's own source: what roles allow.
type roles struct{ of *Authorizer }

func (s roles) Decide(_ context.Context, q Attributes) (Decision, string) {
	var missing []error
	var found *grant
	s.of.current().each(&q.User, q.Namespace, func(h *holdings) bool {
		if found = h.find(&q); found != nil {
			return false
		}
		missing = append(missing, h.missing...)
		return true
	})
	if found != nil {
		return Allow, found.String()
	}
	if len(missing) > 0 {
		return NoOpinion, fmt.Sprintf("RBAC: %v", utilerrors.NewAggregate(missing))
	}
	return NoOpinion, ""
}

// constant always says the same: AlwaysAllow and AlwaysDeny.
type constant struct {
	decision Decision
	reason   string
}

func (c constant) Decide(context.Context, Attributes) (Decision, string) { return c.decision, c.reason }
