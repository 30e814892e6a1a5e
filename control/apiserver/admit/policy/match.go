package policy

import (
	"context"
	"errors"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
)

// errNoConstraints cannot come of an object that was validated.
var errNoConstraints = errors.New("policy contained no match constraints, a required field")

// policy says whether a policy is about the request, and in which version.
func (m *matcher) policy(ctx context.Context, r *match.Request) (match.Found, bool, error) {
	if m == nil {
		return match.Found{}, false, errNoConstraints
	}
	return m.request(ctx, r)
}

// binding says whether a binding is about the request.
func (m *matcher) binding(ctx context.Context, r *match.Request) (bool, error) {
	if m == nil {
		return true, nil
	}
	_, ok, err := m.request(ctx, r)
	return ok, err
}

func (m *matcher) request(ctx context.Context, r *match.Request) (match.Found, bool, error) {
	selected, selectErr := m.selectors.Select(ctx, r)
	if !selected && selectErr == nil {
		return match.Found{}, false, nil
	}
	if _, excluded, err := r.NamedRules(m.resources.ExcludeResourceRules, m.resources.MatchPolicy); excluded || err != nil {
		return match.Found{}, false, err
	}
	found, ok := r.As(), true
	if len(m.resources.ResourceRules) > 0 {
		var err error
		if found, ok, err = r.NamedRules(m.resources.ResourceRules, m.resources.MatchPolicy); err != nil {
			return match.Found{}, false, err
		}
	}
	if !ok || selectErr != nil {
		if !ok {
			selectErr = nil
		}
		return match.Found{}, false, selectErr
	}
	return found, true, nil
}
