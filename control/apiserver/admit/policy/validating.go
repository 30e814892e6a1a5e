package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/cel"
)

// validating is a validating policy, ready to be asked.
type validating struct {
	*admissionregistrationv1.ValidatingAdmissionPolicy
	matches  *matcher
	compiled func() *checks
}

// checks are a validating policy's expressions, compiled. They are read-only.
type checks struct {
	scope      *cel.Scope
	conditions *match.Conditions
	// validations and messages go together; a message may be nil.
	validations, messages, annotations []*cel.Expression
}

func newValidating(p *admissionregistrationv1.ValidatingAdmissionPolicy) *validating {
	return &validating{p, newMatcher(p.Spec.MatchConstraints), sync.OnceValue(func() *checks { return compileChecks(p) })}
}

func compileChecks(p *admissionregistrationv1.ValidatingAdmissionPolicy) *checks {
	s := &p.Spec
	full := cel.Names{Params: s.ParamKind != nil, Authorizer: true}
	c := &checks{scope: cel.NewScope(len(s.Variables) > 0)}
	for _, v := range s.Variables {
		c.scope.Variable(v.Name, v.Expression, full, true)
	}
	c.conditions = match.ConditionsIn(c.scope, s.MatchConditions, full.Params, s.FailurePolicy)
	c.conditions.Compile()
	for _, v := range s.Validations {
		c.validations = append(c.validations, c.scope.Compile(v.Expression, full, true, cel.Bool))
		var message *cel.Expression
		if v.MessageExpression != "" {
			message = c.scope.Compile(v.MessageExpression, cel.Names{Params: full.Params}, true, cel.String)
		}
		c.messages = append(c.messages, message)
	}
	for _, a := range s.AuditAnnotations {
		c.annotations = append(c.annotations, c.scope.Compile(a.ValueExpression, full, true, cel.String, cel.Null))
	}
	return c
}

// decision is what one validation says: nothing is wrong unless denied.
type decision struct {
	denied  bool
	message string
	// reason is "" for what could not be evaluated.
	reason metav1.StatusReason
	// cause is why it could not be evaluated; nil when it could.
	cause error
	took  time.Duration
}

// note is one audit annotation.
type note struct{ key, value string }

// evaluation is what a policy says of one request, with one of its params.
type evaluation struct {
	decisions []decision
	notes     []note
	// failures are audit annotations that could not be evaluated.
	failures []error
	// closed says that what cannot be evaluated is a denial.
	closed bool
}

// closed says that what cannot be evaluated is a denial.
func (v *validating) closed(r *match.Request) bool {
	return (v.Spec.FailurePolicy == nil || *v.Spec.FailurePolicy != admissionregistrationv1.Ignore) && !r.Vital()
}

// failed is the evaluation of a policy that cannot be evaluated at all.
func failed(err error, closed bool) evaluation {
	return evaluation{decisions: []decision{{denied: closed, message: err.Error(), cause: err}}, closed: closed}
}

// evaluate asks the policy; closed says that what cannot be evaluated is a denial.
func (v *validating) evaluate(ctx context.Context, in cel.Input, closed bool) evaluation {
	c := v.compiled()
	met, err := c.conditions.Met(ctx, in)
	if err != nil {
		return failed(err, closed)
	}
	if !met {
		return evaluation{}
	}
	run := c.scope.Start(ctx, in, cel.Budget)
	results := make([]decision, len(c.validations))
	wrong := make([]bool, len(c.validations))
	for i, e := range c.validations {
		begin := time.Now()
		value, err, fatal := run.Evaluate(e)
		switch {
		case fatal != nil:
			return failed(fatal, closed)
		case err != nil:
			results[i] = decision{denied: closed, message: err.Error(), cause: err}
		default:
			wrong[i] = !cel.IsTrue(value)
		}
		results[i].took = time.Since(begin)
	}
	in.Authority = nil // messages and annotations are not told who may what
	out := evaluation{decisions: results, closed: closed}
	v.explain(c.scope.Start(ctx, in, run.Left), c, &out, wrong)
	return v.annotate(c.scope.Start(ctx, in, cel.Budget), c, out)
}

// explain writes the messages of the validations that are wrong.
func (v *validating) explain(run *cel.Run, c *checks, out *evaluation, wrong []bool) {
	results := out.decisions
	texts := make([]string, len(results))
	for i, e := range c.messages {
		if e == nil {
			continue
		}
		value, err, fatal := run.Evaluate(e)
		if fatal != nil {
			out.unexplained(fatal)
			return
		}
		if err == nil {
			texts[i] = sentence(value)
		}
	}
	for i := range results {
		if !wrong[i] {
			continue
		}
		rule := v.Spec.Validations[i]
		results[i] = decision{denied: true, message: texts[i], reason: metav1.StatusReasonInvalid, took: results[i].took}
		if rule.Reason != nil {
			results[i].reason = *rule.Reason
		}
		if results[i].message == "" {
			results[i].message = strings.TrimSpace(rule.Message)
		}
		if results[i].message == "" {
			results[i].message = "failed expression: " + strings.TrimSpace(rule.Expression)
		}
	}
}

// unexplained is what comes of messages that cost too much: as if no validation
// could be evaluated, those aside that could not anyway.
func (e *evaluation) unexplained(err error) {
	for i := range e.decisions {
		if d := &e.decisions[i]; d.message == "" {
			*d = decision{denied: e.closed, message: fmt.Sprintf("failed messageExpression: %s", err), cause: err, took: d.took}
		}
	}
}

// sentence is the text that a message expression made; "" if it is none that can be
// shown.
func sentence(value cel.Value) string {
	text, ok, _ := cel.Text(value)
	text = strings.TrimSpace(text)
	if !ok || len(text) > cel.MaxMessage || strings.Contains(text, "\n") {
		return ""
	}
	return text
}

// annotate evaluates the audit annotations.
func (v *validating) annotate(run *cel.Run, c *checks, out evaluation) evaluation {
	for i, e := range c.annotations {
		value, err, fatal := run.Evaluate(e)
		switch {
		case fatal != nil:
			return failed(fatal, out.closed)
		case err != nil && out.closed:
			out.failures = append(out.failures, err)
			continue
		case err != nil:
			continue
		}
		text, ok, isNull := cel.Text(value)
		switch text = strings.TrimSpace(text); {
		case isNull, ok && text == "":
		case ok:
			out.notes = append(out.notes, note{v.Spec.AuditAnnotations[i].Key, text})
		default:
			//nolint:staticcheck // upstream's words
			out.failures = append(out.failures, fmt.Errorf("valueExpression '%v' resulted in unsupported return type: %v. "+
				"Return type must be either string or null.", e.Text, value.Type()))
		}
	}
	return out
}
