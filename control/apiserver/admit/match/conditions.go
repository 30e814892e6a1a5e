package match

import (
	"context"
	"sync"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/sampan-dev/sampan/control/apiserver/cel"
)

// Conditions are the match conditions of a webhook or policy: expressions that
// must all be true. They are compiled when they are first asked.
type Conditions struct {
	fail    bool
	compile func() []*cel.Expression
	scope   *cel.Scope
}

// NewConditions takes the conditions of a webhook: they know no params and no
// variables.
func NewConditions(all []admissionregistrationv1.MatchCondition, failure *admissionregistrationv1.FailurePolicyType) *Conditions {
	return ConditionsIn(cel.NewScope(false), all, false, failure)
}

// ConditionsIn takes the conditions of a policy, which may speak of what scope has
// compiled, and of params.
func ConditionsIn(scope *cel.Scope, all []admissionregistrationv1.MatchCondition, params bool,
	failure *admissionregistrationv1.FailurePolicyType,
) *Conditions {
	if len(all) == 0 {
		return nil
	}
	return &Conditions{
		fail:  failure == nil || *failure == admissionregistrationv1.Fail,
		scope: scope,
		compile: sync.OnceValue(func() []*cel.Expression {
			out := make([]*cel.Expression, 0, len(all))
			for _, c := range all {
				out = append(out, scope.Compile(c.Expression, cel.Names{Params: params, Authorizer: true}, true, cel.Bool))
			}
			return out
		}),
	}
}

// Compile compiles now.
func (c *Conditions) Compile() {
	if c != nil {
		c.compile()
	}
}

// Met says whether all conditions are true; nil conditions are. One that is false
// settles it; one that fails is an error, or, when the failure policy says so, as
// if it were false.
func (c *Conditions) Met(ctx context.Context, in cel.Input) (bool, error) {
	if c == nil {
		return true, nil
	}
	in.Namespace = nil // upstream's match conditions see none
	run := c.scope.Start(ctx, in, cel.ConditionsBudget)
	var failed []error
	no := false
	for _, e := range c.compile() {
		v, err, fatal := run.Evaluate(e)
		if fatal != nil {
			return c.broken(fatal)
		}
		if err != nil {
			failed = append(failed, err)
		}
		no = no || cel.IsFalse(v)
	}
	if no {
		return false, nil
	}
	if len(failed) > 0 {
		return c.broken(utilerrors.NewAggregate(failed))
	}
	return true, nil
}

func (c *Conditions) broken(err error) (bool, error) {
	if c.fail {
		return false, err
	}
	return false, nil
}
