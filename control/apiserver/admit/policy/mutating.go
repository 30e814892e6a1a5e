package policy

import (
	"context"
	"errors"
	"fmt"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/cel"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// mutating is a mutating policy, ready to be asked.
type mutating struct {
	*admissionregistrationv1.MutatingAdmissionPolicy
	matches  *matcher
	compiled func() *changes
}

// changes are a mutating policy's expressions, compiled. They are read-only.
type changes struct {
	scope      *cel.Scope
	conditions *match.Conditions
	mutations  []mutation
}

// mutation is one change: an apply configuration, or else a JSON patch.
type mutation struct {
	expression *cel.Expression
	apply      bool
}

func newMutating(p *admissionregistrationv1.MutatingAdmissionPolicy) *mutating {
	return &mutating{p, newMatcher(p.Spec.MatchConstraints), sync.OnceValue(func() *changes { return compileChanges(p) })}
}

func compileChanges(p *admissionregistrationv1.MutatingAdmissionPolicy) *changes {
	s := &p.Spec
	names := cel.Names{Params: s.ParamKind != nil, Authorizer: true}
	c := &changes{scope: cel.NewScope(len(s.Variables) > 0)}
	for _, v := range s.Variables {
		c.scope.Variable(v.Name, v.Expression, names, true)
	}
	c.conditions = match.ConditionsIn(c.scope, s.MatchConditions, names.Params, s.FailurePolicy)
	c.conditions.Compile()
	names.Patches = true
	for _, m := range s.Mutations {
		switch {
		case m.PatchType == admissionregistrationv1.PatchTypeApplyConfiguration && m.ApplyConfiguration != nil:
			c.mutations = append(c.mutations, mutation{c.scope.Compile(m.ApplyConfiguration.Expression, names, true, cel.Object), true})
		case m.PatchType == admissionregistrationv1.PatchTypeJSONPatch && m.JSONPatch != nil:
			c.mutations = append(c.mutations, mutation{c.scope.Compile(m.JSONPatch.Expression, names, true, cel.Patch), false})
		}
	}
	return c
}

// change runs one mutation and puts its result in the place of the object.
func (p *Policies) change(ctx context.Context, r *match.Request, found match.Found, c *changes, m mutation, in cel.Input) error {
	if m.expression.Err != nil {
		return m.expression.Err
	}
	var err error
	if in.Object, in.Old, err = r.Objects(found); err != nil {
		return err
	}
	in.Plain = true
	value, failed, fatal := c.scope.Start(ctx, in, cel.Budget).Evaluate(m.expression)
	switch {
	case fatal != nil:
		return fatal
	case failed != nil:
		return failed
	}
	var changed runtime.Object
	if m.apply {
		if changed, err = p.applied(in.Object, r, value); err != nil {
			return err
		}
	} else if changed, err = patched(in.Object, value); err != nil {
		return err
	}
	return r.Change(found, changed)
}

// patched applies the JSON patch that an expression came to. A patch whose test
// fails changes nothing.
func patched(obj runtime.Object, value cel.Value) (runtime.Object, error) {
	raw, err := cel.PatchJSON(value)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(raw)
	if err != nil {
		return nil, fmt.Errorf("JSON Patch: %w", err)
	}
	if len(patch) > resource.MaxPatchOperations {
		return nil, fmt.Errorf("JSON Patch: %d operations, more than %d", len(patch), resource.MaxPatchOperations)
	}
	data, err := match.Encode(obj)
	if err != nil {
		return nil, fmt.Errorf("failed to create JSON patch: %w", err)
	}
	resource.LimitCopies()
	data, err = patch.Apply(data)
	if errors.Is(err, jsonpatch.ErrTestFailed) {
		return obj.DeepCopyObject(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("JSON Patch: %w", err)
	}
	if len(data) > resource.MaxBody {
		return nil, fmt.Errorf("JSON Patch: the object has %d bytes, more than %d", len(data), resource.MaxBody)
	}
	return match.Decode(data, obj, true)
}
