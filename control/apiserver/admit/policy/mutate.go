package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/cel"
)

// part names the mutating policies among those that mutate.
const part = "MutatingAdmissionPolicy"

// turn is one policy with one binding and one of its params: what is asked at once.
type turn struct {
	policy  *mutating
	binding string
	param   runtime.Object
	found   match.Found
}

// key names a turn across the rounds of one write.
func (t *turn) key() string {
	key := t.policy.Name + "/" + t.binding
	if m, ok := t.param.(metav1.Object); ok {
		key += "/" + m.GetNamespace() + "/" + m.GetName()
	}
	return key
}

// fault is why a policy could not change the object.
type fault struct {
	policy  *mutating
	binding string
	text    string
	reason  metav1.StatusReason
}

func (f fault) String() string {
	if f.binding == "" {
		return fmt.Sprintf("policy %q denied request: %s", f.policy.Name, f.text)
	}
	return fmt.Sprintf("policy '%s' with binding '%s' denied request: %s", f.policy.Name, f.binding, f.text)
}

// shaping is the mutation of one request by all mutating policies.
type shaping struct {
	p         *Policies
	r         *match.Request
	authority *cel.Authority
	round     *match.Round
	faults    []fault
}

// mutate asks every policy with every binding that matches, in the order of their
// names; each sees what those before it made of the object.
func (p *Policies) mutate(ctx context.Context, r *match.Request, all []bound[*mutating]) error {
	s := &shaping{p: p, r: r, authority: r.Authority(p.cfg.Authz)}
	var turns []turn
	for _, b := range all {
		turns = append(turns, s.turns(ctx, b)...)
	}
	if len(turns) > 0 {
		s.round = match.Enter(ctx, part, r.Object)
		defer func() { s.round.Leave(r.Object) }()
	}
	for i := range turns {
		if err := s.take(ctx, &turns[i]); err != nil {
			return err
		}
	}
	return s.verdict()
}

// turns finds out with which bindings and params a policy is to be asked.
func (s *shaping) turns(ctx context.Context, b bound[*mutating]) (out []turn) {
	found, ok, err := b.policy.matches.policy(ctx, s.r)
	if err != nil || !ok {
		s.misconfigured(b.policy, "", err)
		return nil
	}
	kind, err := s.p.paramKind(b.policy.Spec.ParamKind)
	if err != nil {
		s.misconfigured(b.policy, "", err)
		return nil
	}
	for _, bind := range b.bindings {
		ok, err := bind.matches.binding(ctx, s.r)
		if err != nil || !ok {
			s.misconfigured(b.policy, bind.name, err)
			continue
		}
		params, err := s.p.params(ctx, kind, bind.params, s.r.Namespace)
		if err != nil {
			s.misconfigured(b.policy, bind.name, err)
			continue
		}
		for _, param := range params {
			out = append(out, turn{b.policy, bind.name, param, found})
		}
	}
	return out
}

func (s *shaping) misconfigured(m *mutating, binding string, err error) {
	if err == nil {
		return
	}
	what := "policy"
	if binding != "" {
		what = "binding"
	}
	s.faults = append(s.faults, fault{m, binding, fmt.Sprintf("failed to configure %s: %s", what, err), ""})
}

// take asks one policy. An error ends the request; what is the policy's own fault
// is noted.
func (s *shaping) take(ctx context.Context, t *turn) error {
	space, err := s.r.Around(ctx)
	if err != nil {
		return err
	}
	in := cel.Input{Params: t.param, Request: s.r.Review(t.found), Namespace: space, Authority: s.authority}
	if in.Object, in.Old, err = s.r.Objects(t.found); err != nil {
		s.misconfigured(t.policy, "", err)
		return nil
	}
	c := t.policy.compiled()
	met, err := c.conditions.Met(ctx, in)
	if err != nil {
		s.faults = append(s.faults, fault{t.policy, t.binding, err.Error(), metav1.StatusReasonInvalid})
		return nil
	}
	if !met || s.r.Object == nil || s.round.Skip(t.key()) {
		return nil
	}
	before := s.r.Object.DeepCopyObject()
	for _, m := range c.mutations {
		begin := time.Now()
		err := s.p.change(ctx, s.r, t.found, c, m, in)
		s.p.metrics.changed(t.policy.Name, t.binding, time.Since(begin), err)
		var status *apierrors.StatusError
		switch {
		case errors.As(err, &status):
			return status
		case err != nil:
			s.faults = append(s.faults, fault{t.policy, t.binding, err.Error(), metav1.StatusReasonInvalid})
		}
	}
	if !apiequality.Semantic.DeepEqual(before, s.r.Object) {
		s.round.Changed()
	}
	if t.policy.Spec.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy {
		s.round.Called(t.key())
	}
	return nil
}

// verdict refuses the request for the faults of policies that fail closed.
func (s *shaping) verdict() error {
	var err *apierrors.StatusError
	for _, f := range s.faults {
		if p := f.policy.Spec.FailurePolicy; p != nil && *p == admissionregistrationv1.Ignore {
			continue
		}
		if s.r.Vital() {
			s.p.cfg.Log.Warn("a policy could not change a vital write, which goes on", "policy", f.policy.Name, "binding", f.binding, "error", f.text)
			continue
		}
		text := f.String()
		if err == nil {
			err = forbidden(s.r, text)
			err.ErrStatus.Message = text
			if f.reason != "" {
				err.ErrStatus.Reason = f.reason
			}
		}
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: text})
	}
	if err == nil {
		return nil
	}
	return err
}
