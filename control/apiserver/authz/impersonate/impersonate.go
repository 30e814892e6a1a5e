// Package impersonate decides who may act as somebody else, and whom the request
// is then from. Beside the one verb "impersonate", which lends a name for
// everything, it knows the constrained modes of KEP-5284: whoever holds
// "impersonate:<mode>" on the name and "impersonate-on:<mode>:<verb>" on what the
// request is about may do just that under the name.
//
// The modes are asked one after the other, constrained ones first. Whatever
// succeeded last for a caller is asked first the next time; the first refusal is
// the one that is told. Verdicts are not kept, as upstream keeps them for ten
// seconds: the roles answer faster than a cache would, and a role that is taken
// away counts at once.
package impersonate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/internal/identity"
)

// maxCallers bounds the callers whose last mode is remembered.
const maxCallers = 10_000

// Decide answers one question of authorisation.
type Decide func(ctx context.Context, q authz.Attributes) (authz.Decision, string)

// Verdict is whom a request is from.
type Verdict struct {
	User identity.Identity
	// Constraint is the verb of the constrained mode that allowed it
	// ("impersonate:user-info"), for audit; "" for the old verb.
	Constraint string
}

// Gate judges impersonations. Safe for concurrent use. It is a
// prometheus.Collector of upstream's apiserver_impersonation_*.
type Gate struct {
	decide  Decide
	metrics *metrics

	mu   sync.Mutex
	last map[string]int // the mode that succeeded last, by the caller's name
}

// New returns a Gate that asks decide.
func New(decide Decide) *Gate {
	return &Gate{decide: decide, metrics: newMetrics(), last: map[string]int{}}
}

// Become lets the caller of q, which is what the request asks for, act as wanted.
// The error is the 403 of the first mode that refused.
func (g *Gate) Become(ctx context.Context, wanted *identity.Identity, q authz.Attributes) (Verdict, error) {
	began := time.Now()
	v, err := g.become(ctx, wanted, q)
	if err != nil {
		g.metrics.attempt("", false, time.Since(began))
		return Verdict{}, err
	}
	g.metrics.attempt(modeOf(v.Constraint), true, time.Since(began))
	return v, nil
}

func (g *Gate) become(ctx context.Context, wanted *identity.Identity, q authz.Attributes) (Verdict, error) {
	first, known := g.lastOf(q.User.Name)
	var refused error
	try := func(i int) (Verdict, bool) {
		m := modes[i]
		if !m.applies(wanted, &q.User) {
			return Verdict{}, false
		}
		user, err := (&attempt{gate: g, mode: m, caller: q.User}).check(ctx, wanted, q)
		if err != nil {
			if refused == nil {
				refused = err
			}
			return Verdict{}, false
		}
		return Verdict{User: user, Constraint: m.constraint()}, true
	}
	if known {
		if v, ok := try(first); ok {
			return v, nil
		}
	}
	for i := range modes {
		if known && i == first {
			continue
		}
		if v, ok := try(i); ok {
			g.remember(q.User.Name, i)
			return v, nil
		}
	}
	if refused == nil {
		refused = errors.New("all impersonation modes failed")
	}
	return Verdict{}, refused
}

func (g *Gate) lastOf(caller string) (int, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i, ok := g.last[caller]
	return i, ok
}

func (g *Gate) remember(caller string, mode int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.last) >= maxCallers {
		clear(g.last)
	}
	g.last[caller] = mode
}

// withImplied adds the group that everybody of the kind has.
func withImplied(who identity.Identity) identity.Identity {
	group := identity.Authenticated
	switch {
	case who.Name == identity.Anonymous:
		group = identity.Unauthenticated
	case who.In(identity.Unauthenticated):
		return who
	}
	if !who.In(group) {
		who.Groups = append(slices.Clip(who.Groups), group)
	}
	return who
}
