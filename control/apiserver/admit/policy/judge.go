package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/audit"
	"github.com/sampan-dev/sampan/control/apiserver/cel"
)

// Bounds of what policies write into one audit event.
const (
	maxFailures   = 50
	maxAnnotation = 10 << 10 // bytes
)

// denial is a decision that refuses the write, and whose it is. binding is "" when
// the policy itself is at fault.
type denial struct {
	policy, binding string
	decision
}

// violation is a decision as the audit log has it.
type violation struct {
	Message string                                     `json:"message"`
	Policy  string                                     `json:"policy"`
	Binding string                                     `json:"binding"`
	Index   int                                        `json:"expressionIndex"`
	Actions []admissionregistrationv1.ValidationAction `json:"validationActions"`
}

// trial is the judging of one request by all validating policies.
type trial struct {
	p         *Policies
	r         *match.Request
	authority *cel.Authority
	denials   []denial
	audited   []violation
	// notes are those of the present policy.
	notes map[string][]string
}

// judge asks every policy with every binding that matches. All are asked, even
// after a denial, for their warnings and audit annotations; the first denial is told.
func (p *Policies) judge(ctx context.Context, r *match.Request, all []bound[*validating]) error {
	t := &trial{p: p, r: r, authority: r.Authority(p.cfg.Authz)}
	for _, b := range all {
		found, ok, err := b.policy.matches.policy(ctx, r)
		if err != nil {
			t.misconfigured(b.policy, "", err)
		}
		if !ok || err != nil {
			continue
		}
		if err := t.policy(ctx, b, found); err != nil {
			return err
		}
	}
	t.publish(ctx)
	return t.verdict()
}

// misconfigured applies the failure policy to what cannot be asked.
func (t *trial) misconfigured(v *validating, binding string, err error) {
	if !v.closed(t.r) {
		return
	}
	what := "policy"
	if binding != "" {
		what = "binding"
	}
	t.denials = append(t.denials, denial{v.Name, binding, decision{message: fmt.Sprintf("failed to configure %s: %s", what, err)}})
}

// policy asks one policy with each of its bindings.
func (t *trial) policy(ctx context.Context, b bound[*validating], found match.Found) error {
	kind, err := t.p.paramKind(b.policy.Spec.ParamKind)
	if err != nil {
		t.misconfigured(b.policy, "", err)
		return nil
	}
	t.notes = map[string][]string{}
	for _, bind := range b.bindings {
		ok, err := bind.matches.binding(ctx, t.r)
		if err == nil && !ok {
			continue
		}
		var params []runtime.Object
		if err == nil {
			params, err = t.p.params(ctx, kind, bind.params, t.r.Namespace)
		}
		var obj, old runtime.Object
		if err == nil && len(params) > 0 {
			if obj, old, err = t.r.Objects(found); err != nil {
				err = fmt.Errorf("failed to convert object version: %w", err)
			}
		}
		if err != nil {
			t.misconfigured(b.policy, bind.name, err)
			continue
		}
		space, err := t.r.Around(ctx)
		if err != nil {
			return err
		}
		for _, param := range params {
			t.note(b.policy, bind, b.policy.evaluate(ctx, cel.Input{Object: obj, Old: old, Params: param,
				Request: t.r.Review(found), Namespace: space, Authority: t.authority}, b.policy.closed(t.r)))
		}
	}
	for key, values := range t.notes {
		audit.Annotate(ctx, b.policy.Name+"/"+key, strings.Join(values, ", "))
	}
	return nil
}

// note does with an evaluation what the binding says.
func (t *trial) note(v *validating, b *binding, e evaluation) {
	for i, d := range e.decisions {
		if !d.denied {
			t.passed(v, b, d)
			continue
		}
		for _, action := range b.actions {
			switch action {
			case admissionregistrationv1.Deny:
				t.denials = append(t.denials, denial{v.Name, b.name, d})
				t.p.metrics.judged(v.Name, b.name, d, "deny")
			case admissionregistrationv1.Audit:
				t.audited = append(t.audited, violation{Message: d.message, Policy: v.Name, Binding: b.name, Index: i, Actions: b.actions})
				t.p.metrics.judged(v.Name, b.name, d, "audit")
			case admissionregistrationv1.Warn:
				t.r.Warn(fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", v.Name, b.name, d.message))
				t.p.metrics.judged(v.Name, b.name, d, "warn")
			}
		}
	}
	for _, n := range e.notes {
		n.value = n.value[:min(len(n.value), maxAnnotation)]
		if !slices.Contains(t.notes[n.key], n.value) {
			t.notes[n.key] = append(t.notes[n.key], n.value)
		}
	}
	for _, err := range e.failures {
		d := decision{message: err.Error(), cause: err}
		t.denials = append(t.denials, denial{v.Name, b.name, d})
		t.p.metrics.judged(v.Name, b.name, d, "deny")
	}
}

// passed notes what could not be evaluated and yet refuses nothing.
func (t *trial) passed(v *validating, b *binding, d decision) {
	if d.cause == nil {
		return
	}
	t.p.metrics.judged(v.Name, b.name, d, "allow")
	if t.r.Vital() {
		t.p.cfg.Log.Warn("a policy could not judge a vital write, which goes on", "policy", v.Name, "binding", b.name, "error", d.cause)
	}
}

// publish writes the violations that only the audit log is told of.
func (t *trial) publish(ctx context.Context) {
	if len(t.audited) == 0 {
		return
	}
	raw, err := json.Marshal(t.audited[:min(len(t.audited), maxFailures)])
	if err != nil {
		t.p.cfg.Log.Error("encode validation failures for the audit log", "error", err)
		return
	}
	audit.Annotate(ctx, "validation.policy.admission.k8s.io/validation_failure", string(raw))
}

// verdict is the first denial as the client is told it.
func (t *trial) verdict() error {
	if len(t.denials) == 0 {
		return nil
	}
	d := t.denials[0]
	text := fmt.Sprintf("ValidatingAdmissionPolicy '%s' denied request: %s", d.policy, d.message)
	if d.binding != "" {
		text = fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s", d.policy, d.binding, d.message)
	}
	err := forbidden(t.r, text)
	err.ErrStatus.Reason = d.reason
	if d.reason == "" {
		err.ErrStatus.Reason = metav1.StatusReasonInvalid
	}
	err.ErrStatus.Code = codeOf(err.ErrStatus.Reason)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: text})
	return err
}

func codeOf(reason metav1.StatusReason) int32 {
	switch reason {
	case metav1.StatusReasonForbidden:
		return http.StatusForbidden
	case metav1.StatusReasonUnauthorized:
		return http.StatusUnauthorized
	case metav1.StatusReasonRequestEntityTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusUnprocessableEntity
}

// forbidden is a refusal of the request in text's words.
func forbidden(r *match.Request, text string) *apierrors.StatusError {
	return r.Forbidden(errors.New(text))
}
