package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/audit"
	"github.com/sampan-dev/sampan/control/apiserver/pause"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// part names the mutating webhooks among those that mutate.
const part = "MutatingAdmissionWebhook"

// What the keys of the audit annotations begin with.
const (
	failedOpen   = "failed-open."
	mutationNote = "mutation.webhook.admission.k8s.io/"
	patchNote    = "patch.webhook.admission.k8s.io/"
)

// mutate calls the webhooks one after the other; each sees what those before it
// made of the object.
func (w *Webhooks) mutate(ctx context.Context, r *match.Request, hooks []*hook) error {
	round := match.Enter(ctx, part, r.Object)
	defer func() { round.Leave(r.Object) }()
	patient, done := patience(ctx, r)
	defer done()
	for i, h := range hooks {
		found, ok, err := w.wants(ctx, r, h)
		if err != nil {
			return err
		}
		if !ok || round.Skip(h.key) {
			continue
		}
		begin := time.Now()
		index := fmt.Sprintf("round_%d_index_%d", round.Number(), i)
		changed, err := w.change(patient, r, h, found, index)
		at := mutationNote + index
		audit.Annotate(ctx, at, noteOf(h, changed))
		ignored, told := h.verdict(r, err)
		took := time.Since(begin)
		pause.Add(ctx, took)
		w.metrics.called(h, stepMutate, r.Operation, took, err, ignored)
		if changed {
			round.Changed()
		}
		if h.again {
			round.Called(h.key)
		}
		if err == nil {
			continue
		}
		if !ignored {
			return told
		}
		if !errors.Is(err, context.Canceled) {
			w.cfg.Log.Warn("mutating webhook failed; the write goes on", "webhook", h.name, "error", err)
			audit.Annotate(ctx, failedOpen+at, h.name)
		}
		if ctx.Err() != nil {
			return tooLate()
		}
	}
	return nil
}

func tooLate() error {
	return apierrors.NewTimeoutError("request did not complete within requested timeout", 0)
}

// noteOf is what the audit log says of a call.
func noteOf(h *hook, mutated bool) string {
	raw, _ := json.Marshal(struct { // strings and a bool
		Configuration string `json:"configuration"`
		Webhook       string `json:"webhook"`
		Mutated       bool   `json:"mutated"`
	}{h.config, h.name, mutated})
	return string(raw)
}

// patchOf is what the audit log says of a patch, where it has bodies.
func patchOf(h *hook, patch jsonpatch.Patch) string {
	raw, err := json.Marshal(struct {
		Configuration string          `json:"configuration"`
		Webhook       string          `json:"webhook"`
		Patch         jsonpatch.Patch `json:"patch,omitempty"`
		PatchType     string          `json:"patchType,omitempty"`
	}{h.config, h.name, patch, string(admissionv1.PatchTypeJSONPatch)})
	if err != nil {
		return ""
	}
	return string(raw)
}

// change calls one webhook and applies what it answers. index names the call in the
// audit log.
func (w *Webhooks) change(ctx context.Context, r *match.Request, h *hook, found match.Found, index string) (changed bool, err error) {
	answer, err := w.ask(ctx, r, h, found, true)
	if answer != nil {
		heed(ctx, r, h, answer)
	}
	if err != nil || len(answer.Patch) == 0 {
		return false, err
	}
	patch, err := jsonpatch.DecodePatch(answer.Patch)
	if err != nil {
		return false, &failure{webhook: h.name, cause: fmt.Errorf("received undecodable patch in webhook response: %w", err)}
	}
	if len(patch) == 0 {
		return false, nil
	}
	if r.Object == nil {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q attempted to modify the object, which is not supported for this operation", h.name))
	}
	if *answer.PatchType != admissionv1.PatchTypeJSONPatch {
		return false, &failure{webhook: h.name, cause: fmt.Errorf("unsupported patch type %q", *answer.PatchType)}
	}
	if len(patch) > resource.MaxPatchOperations {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q answered with %d patch operations, more than %d", h.name, len(patch), resource.MaxPatchOperations))
	}
	changed, err = apply(r, found, patch)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	if audit.Detailed(ctx, audit.Request) {
		audit.Annotate(ctx, patchNote+index, patchOf(h, patch))
	}
	return changed, nil
}

// apply patches the object in the version that the webhook saw.
func apply(r *match.Request, found match.Found, patch jsonpatch.Patch) (changed bool, err error) {
	before, _, err := r.Objects(found)
	if err != nil {
		return false, err
	}
	data, err := match.Encode(before)
	if err != nil {
		return false, err
	}
	resource.LimitCopies()
	data, err = patch.Apply(data)
	if err != nil {
		return false, err
	}
	if len(data) > resource.MaxBody {
		return false, fmt.Errorf("the patched object has %d bytes, more than %d", len(data), resource.MaxBody)
	}
	after, err := match.Decode(data, before, false)
	if err != nil {
		return false, err
	}
	changed = !apiequality.Semantic.DeepEqual(before, after)
	return changed, r.Change(found, after)
}

// heed passes on what a webhook says besides yes or no.
func heed(ctx context.Context, r *match.Request, h *hook, answer *admissionv1.AdmissionResponse) {
	for key, value := range answer.AuditAnnotations {
		audit.Annotate(ctx, h.name+"/"+key, value)
	}
	for _, text := range answer.Warnings {
		r.Warn(text)
	}
}
