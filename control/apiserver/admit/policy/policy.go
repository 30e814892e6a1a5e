// Package policy changes and judges writes by expressions that users wrote:
// MutatingAdmissionPolicy and ValidatingAdmissionPolicy, put to work by their
// bindings, with params from the cluster's own objects.
//
// Policies are followed by a watch and compiled when they first match, once for
// each generation. What an evaluation may cost is bounded by upstream's budgets.
//
// Facts: admissionregistration.k8s.io/v1, and Kubernetes v1.37's admission plugins
// of the same names: their order of evaluation, messages and status codes.
package policy

import (
	"context"
	"log/slog"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/control/apiserver/admit/follow"
	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// Reader reads params and namespaces as the server itself.
type Reader interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
}

// Config is all that Policies need. All fields must be set.
type Config struct {
	// Policies are listed and watched through it, as the server itself.
	Policies follow.Watcher
	Objects  Reader
	Table    match.Table
	// Authz answers the expressions' questions.
	Authz *authz.Authorizer
	Log   *slog.Logger
}

// Policies are the admission rule. Its methods may be called concurrently, Run once.
type Policies struct {
	cfg     Config
	metrics *metrics

	validating         *follow.Objects[*admissionregistrationv1.ValidatingAdmissionPolicy]
	validatingBindings *follow.Objects[*admissionregistrationv1.ValidatingAdmissionPolicyBinding]
	mutating           *follow.Objects[*admissionregistrationv1.MutatingAdmissionPolicy]
	mutatingBindings   *follow.Objects[*admissionregistrationv1.MutatingAdmissionPolicyBinding]

	validatingBook book[*validating, *admissionregistrationv1.ValidatingAdmissionPolicy, *admissionregistrationv1.ValidatingAdmissionPolicyBinding]
	mutatingBook   book[*mutating, *admissionregistrationv1.MutatingAdmissionPolicy, *admissionregistrationv1.MutatingAdmissionPolicyBinding]
}

// New returns Policies. Until Run has read them, writes wait.
func New(cfg Config) *Policies {
	p := &Policies{cfg: cfg, metrics: newMetrics()}
	p.validating = followed[*admissionregistrationv1.ValidatingAdmissionPolicy](cfg, "validatingadmissionpolicies")
	p.validatingBindings = followed[*admissionregistrationv1.ValidatingAdmissionPolicyBinding](cfg, "validatingadmissionpolicybindings")
	p.mutating = followed[*admissionregistrationv1.MutatingAdmissionPolicy](cfg, "mutatingadmissionpolicies")
	p.mutatingBindings = followed[*admissionregistrationv1.MutatingAdmissionPolicyBinding](cfg, "mutatingadmissionpolicybindings")
	p.validatingBook.read, p.validatingBook.bind = newValidating, bindValidating
	p.mutatingBook.read, p.mutatingBook.bind = newMutating, bindMutating
	return p
}

func followed[T kinds.Object](cfg Config, name string) *follow.Objects[T] {
	at := target.Of(admissionregistrationv1.SchemeGroupVersion.WithResource(name), "")
	return follow.New[T](cfg.Policies, at, cfg.Log)
}

// Run follows policies and bindings until ctx ends.
func (p *Policies) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.validating.Run(ctx) })
	g.Go(func() error { return p.validatingBindings.Run(ctx) })
	g.Go(func() error { return p.mutating.Run(ctx) })
	g.Go(func() error { return p.mutatingBindings.Run(ctx) })
	return g.Wait()
}

// Admit lets the mutating policies change the object. A deletion has nothing to
// change.
func (p *Policies) Admit(ctx context.Context, a *resource.Attributes) error {
	if a.Operation == resource.OpDelete || match.ExemptFromPolicies(a) {
		return nil
	}
	policies, err := p.mutating.Now(ctx)
	if err != nil {
		return err
	}
	bindings, err := p.mutatingBindings.Now(ctx)
	if err != nil {
		return err
	}
	bound := p.mutatingBook.of(policies, bindings)
	if len(bound) == 0 {
		return nil
	}
	return p.mutate(ctx, match.NewRequest(a, p.cfg.Table, p.cfg.Objects), bound)
}

// Rights is the rule by which policies and bindings themselves are judged: who
// writes one must be allowed to read its params.
func (p *Policies) Rights() interface {
	Admit(ctx context.Context, a *resource.Attributes) error
	Validate(ctx context.Context, a *resource.Attributes) error
} {
	return rights{p}
}

type rights struct{ *Policies }

func (rights) Admit(context.Context, *resource.Attributes) error { return nil }

func (r rights) Validate(ctx context.Context, a *resource.Attributes) error { return r.mayRead(ctx, a) }

// Validate lets the validating policies judge the object.
func (p *Policies) Validate(ctx context.Context, a *resource.Attributes) error {
	if match.ExemptFromPolicies(a) {
		return nil
	}
	policies, err := p.validating.Now(ctx)
	if err != nil {
		return err
	}
	bindings, err := p.validatingBindings.Now(ctx)
	if err != nil {
		return err
	}
	bound := p.validatingBook.of(policies, bindings)
	if len(bound) == 0 {
		return nil
	}
	return p.judge(ctx, match.NewRequest(a, p.cfg.Table, p.cfg.Objects), bound)
}
