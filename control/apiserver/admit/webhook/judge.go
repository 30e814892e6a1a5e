package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/audit"
	"github.com/sampan-dev/sampan/control/apiserver/pause"
)

// call is one webhook that is to judge, and what came of it.
type call struct {
	hook   *hook
	found  match.Found
	answer *admissionv1.AdmissionResponse
	err    error
	took   time.Duration
}

// judge calls all webhooks that want to see the object at once and waits for all;
// of several refusals the first in the order of the configurations is told.
func (w *Webhooks) judge(ctx context.Context, r *match.Request, hooks []*hook) error {
	var calls []*call
	for _, h := range hooks {
		found, ok, err := w.wants(ctx, r, h)
		if err != nil {
			return err
		}
		if ok {
			calls = append(calls, &call{hook: h, found: found})
		}
	}
	if len(calls) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return tooLate()
	}
	patient, done := patience(ctx, r)
	defer done()
	var wg sync.WaitGroup
	for _, c := range calls {
		wg.Go(func() {
			begin := time.Now()
			defer func() { c.took = time.Since(begin) }()
			defer c.contain()
			c.answer, c.err = w.ask(patient, r, c.hook, c.found, false)
		})
	}
	wg.Wait()
	pause.Add(ctx, slices.MaxFunc(calls, func(a, b *call) int { return cmp.Compare(a.took, b.took) }).took)
	return w.sum(ctx, r, calls)
}

// contain makes a panic the call's own failure.
func (c *call) contain() {
	switch p := recover(); {
	case p == nil:
	case c.hook.ignore:
		c.err = &failure{webhook: c.hook.name, cause: fmt.Errorf("panic: %v", p)}
	default:
		c.err = apierrors.NewInternalError(fmt.Errorf("ValidatingAdmissionWebhook/%v has panicked: %v", c.hook.name, p))
	}
}

// sum passes on what the webhooks said, and gives the first refusal.
func (w *Webhooks) sum(ctx context.Context, r *match.Request, calls []*call) error {
	var first error
	for i, c := range calls {
		if c.answer != nil {
			heed(ctx, r, c.hook, c.answer)
		}
		if c.err == nil {
			w.metrics.called(c.hook, stepJudge, r.Operation, c.took, nil, false)
			continue
		}
		ignored, told := c.hook.verdict(r, c.err)
		w.metrics.called(c.hook, stepJudge, r.Operation, c.took, c.err, ignored)
		if ignored {
			if !errors.Is(c.err, context.Canceled) {
				w.cfg.Log.Warn("validating webhook failed; the write goes on", "webhook", c.hook.name, "error", c.err)
				audit.Annotate(ctx, fmt.Sprintf("%svalidating.webhook.admission.k8s.io/round_0_index_%d", failedOpen, i), c.hook.name)
			}
			continue
		}
		if first == nil {
			first = told
		}
	}
	return first
}
