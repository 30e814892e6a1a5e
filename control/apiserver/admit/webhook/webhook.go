// Package webhook lets other people's servers change and judge writes: it shows
// each write that a MutatingWebhookConfiguration or ValidatingWebhookConfiguration
// asks for to the webhook named there, applies the changes and heeds the verdict.
//
// Mutating webhooks are called one after the other, in the order of their
// configurations' names; validating ones all at once. Configurations are followed
// by a watch: one is in force a moment after it was written. What configures
// admission itself, and what asks who somebody is or what they may, is never
// shown to a webhook, so that a webhook that is down can always be taken away. One
// that is down stops neither what is vital nor the repair of its own service.
//
// Facts: admission.k8s.io/v1 and v1beta1; Kubernetes v1.37's admission plugins
// MutatingAdmissionWebhook and ValidatingAdmissionWebhook, and their messages.
package webhook

import (
	"context"
	"log/slog"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/control/apiserver/admit/follow"
	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/apiserver/webhook"
	"github.com/sampan-dev/sampan/internal/target"
)

// Caller posts a request to a webhook and decodes its answer.
type Caller interface {
	Call(ctx context.Context, cfg webhook.ClientConfig, request, response any) error
}

// Config is all that Webhooks need. All fields must be set.
type Config struct {
	// Configurations are listed and watched through it, as the server itself.
	Configurations follow.Watcher
	Objects        match.Reader
	Table          match.Table
	Caller         Caller
	// Authz answers the match conditions' questions.
	Authz *authz.Authorizer
	Log   *slog.Logger
}

// Webhooks are the admission rule. Its methods may be called concurrently, Run once.
type Webhooks struct {
	cfg        Config
	metrics    *metrics
	mutating   *follow.Objects[*admissionregistrationv1.MutatingWebhookConfiguration]
	validating *follow.Objects[*admissionregistrationv1.ValidatingWebhookConfiguration]

	mutatingHooks   book[*admissionregistrationv1.MutatingWebhookConfiguration]
	validatingHooks book[*admissionregistrationv1.ValidatingWebhookConfiguration]
}

// New returns Webhooks. Until Run has read the configurations, writes wait.
func New(cfg Config) *Webhooks {
	gv := admissionregistrationv1.SchemeGroupVersion
	w := &Webhooks{cfg: cfg, metrics: newMetrics()}
	w.mutating = follow.New[*admissionregistrationv1.MutatingWebhookConfiguration](cfg.Configurations,
		target.Of(gv.WithResource("mutatingwebhookconfigurations"), ""), cfg.Log)
	w.validating = follow.New[*admissionregistrationv1.ValidatingWebhookConfiguration](cfg.Configurations,
		target.Of(gv.WithResource("validatingwebhookconfigurations"), ""), cfg.Log)
	w.mutatingHooks.read = mutatingHooks
	w.validatingHooks.read = validatingHooks
	return w
}

// Run follows the configurations until ctx ends.
func (w *Webhooks) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.mutating.Run(ctx) })
	g.Go(func() error { return w.validating.Run(ctx) })
	return g.Wait()
}

// Admit lets the mutating webhooks change the object.
func (w *Webhooks) Admit(ctx context.Context, a *resource.Attributes) error {
	if match.ExemptFromWebhooks(a) {
		return nil
	}
	now, err := w.mutating.Now(ctx)
	if err != nil {
		return err
	}
	hooks := w.mutatingHooks.of(now)
	if len(hooks) == 0 {
		return nil
	}
	return w.mutate(ctx, match.NewRequest(a, w.cfg.Table, w.cfg.Objects), hooks)
}

// Validate lets the validating webhooks judge the object.
func (w *Webhooks) Validate(ctx context.Context, a *resource.Attributes) error {
	if match.ExemptFromWebhooks(a) {
		return nil
	}
	now, err := w.validating.Now(ctx)
	if err != nil {
		return err
	}
	hooks := w.validatingHooks.of(now)
	if len(hooks) == 0 {
		return nil
	}
	return w.judge(ctx, match.NewRequest(a, w.cfg.Table, w.cfg.Objects), hooks)
}

// wants says whether a webhook is to be called, and with which kind.
func (w *Webhooks) wants(ctx context.Context, r *match.Request, h *hook) (match.Found, bool, error) {
	selected, selectErr := h.selectors.Select(ctx, r)
	if !selected && selectErr == nil {
		return match.Found{}, false, nil
	}
	found, ok, err := r.Rules(h.rules, h.match)
	if err != nil {
		return found, false, apierrors.NewInternalError(err)
	}
	if !ok || selectErr != nil {
		return found, false, onlyIf(ok, selectErr)
	}
	if h.conditions == nil {
		return found, true, nil
	}
	in, err := w.input(r, found)
	if err != nil {
		return found, false, apierrors.NewInternalError(err)
	}
	met, err := h.conditions.Met(ctx, in)
	if err != nil {
		err = r.Forbidden(err)
	}
	return found, met, err
}

func onlyIf(ok bool, err error) error {
	if ok {
		return err
	}
	return nil
}
