package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
)

// The versions of AdmissionReview that are spoken. Their JSON is the same.
const (
	versionV1      = "v1"
	versionV1beta1 = "v1beta1"
)

// failure says that a webhook could not be asked, or gave no answer that counts:
// what the failure policy is about.
type failure struct {
	webhook string
	cause   error
	// down says that the webhook as a whole is, not that it failed with this request.
	down bool
}

func (f *failure) Error() string {
	return fmt.Sprintf("failed calling webhook %q: %v", f.webhook, f.cause)
}

func (f *failure) Unwrap() error { return f.cause }

// refusal says that a webhook said no.
type refusal struct{ *apierrors.StatusError }

// ask shows the request to a webhook. The answer is an allowing one; what it says
// besides is for the caller to heed, also when err is a refusal.
func (w *Webhooks) ask(ctx context.Context, r *match.Request, h *hook, found match.Found, mutating bool) (*admissionv1.AdmissionResponse, error) {
	if r.DryRun {
		if err := h.dry(); err != nil {
			return nil, err
		}
	}
	version := h.version()
	if version == "" {
		return nil, &failure{webhook: h.name, cause: errors.New("could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)")}
	}
	obj, old, err := r.Objects(found)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	request := r.Review(found)
	request.UID = uuid.NewUUID()
	request.Object, request.OldObject = runtime.RawExtension{Object: obj}, runtime.RawExtension{Object: old}
	gvk := schema.GroupVersionKind{Group: admissionv1.GroupName, Version: version, Kind: "AdmissionReview"}
	question := &admissionv1.AdmissionReview{Request: request}
	question.SetGroupVersionKind(gvk)
	answer := &admissionv1.AdmissionReview{}
	limited, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	if err := w.cfg.Caller.Call(limited, h.client, question, answer); err != nil {
		return nil, h.missed(ctx, fmt.Errorf("failed to call webhook: %w", err))
	}
	if err := verify(answer, request, gvk, mutating); err != nil {
		return nil, h.missed(ctx, fmt.Errorf("received invalid webhook response: %w", err))
	}
	h.misses.Store(0)
	if !answer.Response.Allowed {
		return answer.Response, refusal{denied(h.name, answer.Response.Result)}
	}
	return answer.Response, nil
}

// dry refuses a dry run that a webhook would turn into more.
func (h *hook) dry() error {
	switch {
	case h.sideEffects == nil:
		return &failure{webhook: h.name, cause: errors.New("Webhook SideEffects is nil")} //nolint:staticcheck // upstream's words
	case *h.sideEffects == admissionregistrationv1.SideEffectClassNone, *h.sideEffects == admissionregistrationv1.SideEffectClassNoneOnDryRun:
		return nil
	}
	return apierrors.NewBadRequest(fmt.Sprintf("admission webhook %q does not support dry run", h.name))
}

// version is the first version of AdmissionReview that the webhook names and the
// server speaks.
func (h *hook) version() string {
	for _, v := range h.versions {
		if v == versionV1 || v == versionV1beta1 {
			return v
		}
	}
	return ""
}

// verify refuses answers that are none. The older version is judged as leniently
// as it always was.
func verify(answer *admissionv1.AdmissionReview, asked *admissionv1.AdmissionRequest, gvk schema.GroupVersionKind, mutating bool) error {
	got := answer.Response
	if got == nil {
		return errors.New("webhook response was absent")
	}
	if gvk.Version == versionV1beta1 {
		got.PatchType = nil
		if len(got.Patch) > 0 && mutating {
			got.PatchType = new(admissionv1.PatchTypeJSONPatch)
		}
		return nil
	}
	switch {
	case got.UID != asked.UID:
		return fmt.Errorf("expected response.uid=%q, got %q", asked.UID, got.UID)
	case answer.GroupVersionKind() != gvk:
		return fmt.Errorf("expected webhook response of %v, got %v", gvk, answer.GroupVersionKind())
	case !mutating && len(got.Patch) > 0:
		return errors.New("validating webhook may not return response.patch")
	case !mutating && got.PatchType != nil:
		return errors.New("validating webhook may not return response.patchType")
	case len(got.Patch) > 0 && got.PatchType == nil:
		return errors.New("webhook returned response.patch but not response.patchType")
	case len(got.Patch) == 0 && got.PatchType != nil:
		return errors.New("webhook returned response.patchType but not response.patch")
	case got.PatchType != nil && *got.PatchType == "":
		return fmt.Errorf("webhook returned invalid response.patchType of %q", *got.PatchType)
	}
	return nil
}

// denied makes a webhook's no what the client is told.
func denied(name string, result *metav1.Status) *apierrors.StatusError {
	status := metav1.Status{}
	if result != nil {
		status = *result
	}
	if status.Code < http.StatusBadRequest {
		status.Code = http.StatusBadRequest
	}
	if status.Status == "" || status.Status == metav1.StatusSuccess {
		status.Status = metav1.StatusFailure
	}
	text := fmt.Sprintf("admission webhook %q denied the request", name)
	switch {
	case status.Message != "":
		status.Message = text + ": " + status.Message
	case status.Reason != "":
		status.Message = text + ": " + string(status.Reason)
	default:
		status.Message = text + " without explanation"
	}
	return &apierrors.StatusError{ErrStatus: status}
}

// verdict is what a client is told of a call that failed or refused. ignored says
// that the write goes on all the same.
func (h *hook) verdict(r *match.Request, err error) (ignored bool, told error) {
	var failed *failure
	var no refusal
	switch {
	case errors.As(err, &failed) && h.open(r, failed.down):
		return true, nil
	case errors.As(err, &failed):
		return false, apierrors.NewInternalError(err)
	case errors.As(err, &no):
		return false, no.StatusError
	}
	return false, err
}
