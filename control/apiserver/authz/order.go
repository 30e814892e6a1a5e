package authz

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
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
func (a *Authorizer) Use(order []Source) {
	listed := make([]counted, 0, len(order))
	for _, s := range order {
		listed = append(listed, a.counting(s))
	}
	a.order.Store(&listed)
}

// Decide asks the sources. The reason is that of the decision or, when nobody has
// an opinion, what all of them said, each under its name.
func (a *Authorizer) Decide(ctx context.Context, q Attributes) (Decision, string) {
	if q.User.In(identity.Masters) {
		return Allow, ""
	}
	var reasons []string
	order := *a.order.Load()
	for i := range order {
		decision, reason := order[i].Decide(ctx, q)
		if decision != NoOpinion {
			order[i].count(decision)
			return decision, reason
		}
		if reason != "" {
			reasons = append(reasons, order[i].name+": "+reason)
		}
	}
	return NoOpinion, strings.Join(reasons, "\n")
}

// The types of sources, as upstream's configuration has them.
const (
	typeNode    = "Node"
	typeRBAC    = "RBAC"
	typeWebhook = "Webhook"
	typeAllow   = "AlwaysAllow"
	typeDeny    = "AlwaysDeny"
)

// counted is a Source whose decisions are counted.
type counted struct {
	Source
	name            string
	allowed, denied prometheus.Counter
}

// counting finds out what a source is called: webhooks have names of their own.
func (a *Authorizer) counting(s Source) counted {
	kind := ""
	switch of := s.(type) {
	case adapted:
		kind = typeNode
	case roles:
		kind = typeRBAC
	case constant:
		if kind = typeDeny; of.decision == Allow {
			kind = typeAllow
		}
	case *webhook:
		return counted{s, of.name, a.decisions.WithLabelValues(typeWebhook, of.name, "allowed"), a.decisions.WithLabelValues(typeWebhook, of.name, "denied")}
	}
	name := strings.ToLower(kind)
	return counted{s, name, a.decisions.WithLabelValues(kind, name, "allowed"), a.decisions.WithLabelValues(kind, name, "denied")}
}

func (c *counted) count(d Decision) {
	if d == Allow {
		c.allowed.Inc()
		return
	}
	c.denied.Inc()
}

// Describe implements prometheus.Collector.
func (a *Authorizer) Describe(c chan<- *prometheus.Desc) { a.decisions.Describe(c) }

// Collect implements prometheus.Collector.
func (a *Authorizer) Collect(c chan<- prometheus.Metric) { a.decisions.Collect(c) }

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
