package crd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/webhook"
)

// unknownVersion is the error by which the record of field owners knows that a
// version is gone.
func unknownVersion(from, to schema.GroupVersionKind) error {
	return runtime.NewNotRegisteredGVKErrForTarget(from.Kind, from, to.GroupVersion())
}

// convert gives objs in another version, in their order; they are left alone, and
// are the answer where they are of that version already. The results are pruned by
// their version's schema. A webhook is asked once for each version that there is.
func (f *family) convert(ctx context.Context, to *version, objs ...*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	out := make([]*unstructured.Unstructured, len(objs))
	ask := map[schema.GroupVersionKind][]int{}
	for i, obj := range objs {
		switch from := obj.GroupVersionKind(); {
		case from.GroupVersion() == to.gvk.GroupVersion():
			out[i] = obj
		case f.asks() && !empty(obj):
			ask[from] = append(ask[from], i)
		default:
			out[i] = obj.DeepCopy()
			out[i].SetAPIVersion(to.gvk.GroupVersion().String())
		}
	}
	for from, places := range ask {
		if err := f.convertPlaces(ctx, from, to.gvk, objs, out, places); err != nil {
			return nil, err
		}
	}
	for i := range out {
		if out[i] == objs[i] {
			continue
		}
		if _, err := to.coerce(out[i].Object, strictly); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// empty objects have nothing to convert: only a kind and a version.
func empty(obj *unstructured.Unstructured) bool {
	_, kind := obj.Object["kind"]
	_, version := obj.Object["apiVersion"]
	return len(obj.Object) == 2 && kind && version
}

// convertPlaces lets the webhook convert those of objs that are of one version.
func (f *family) convertPlaces(ctx context.Context, from, to schema.GroupVersionKind, objs, out []*unstructured.Unstructured, places []int) error {
	some := make([]*unstructured.Unstructured, len(places))
	for i, place := range places {
		some[i] = objs[place]
	}
	c := conversion{family: f, from: from, to: to}
	begin := time.Now()
	made, err := c.ask(ctx, some)
	f.cfg.metrics.converted(f.def.Name, c, time.Since(begin), err)
	if err != nil {
		return c.told(ctx, err)
	}
	for i, place := range places {
		out[place] = made[i]
	}
	return nil
}

// conversion is one question to a definition's webhook.
type conversion struct {
	family   *family
	from, to schema.GroupVersionKind
}

// failed is how a conversion failed, as the metrics tell failures apart.
type failed struct {
	sort  string
	cause error
}

func (f *failed) Error() string { return f.cause.Error() }

func (f *failed) Unwrap() error { return f.cause }

// The sorts of failures, upstream's.
const (
	callFailed    = "conversion_webhook_call_failure"
	malformed     = "conversion_webhook_malformed_response_failure"
	incomplete    = "conversion_webhook_partial_response_failure"
	invalidObject = "conversion_webhook_invalid_converted_object_failure"
)

func (c conversion) fail(sort, format string, args ...any) error {
	return &failed{sort, fmt.Errorf("conversion webhook for %v "+format, append([]any{c.from}, args...)...)}
}

// told is what a client is told of a failed conversion: 500 in the conversion's own
// words, or that its time is up.
func (c conversion) told(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", err, context.Cause(ctx))
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}}
}

// ask lets the webhook convert objects of one version, all in one call.
func (c conversion) ask(ctx context.Context, objs []*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	hook := c.family.def.Spec.Conversion.Webhook
	if hook == nil || hook.ClientConfig == nil {
		return nil, c.fail(callFailed, "failed: no webhook is configured")
	}
	review, uid := newReview(hook.ConversionReviewVersions, objs, c.to)
	if review == nil {
		return nil, &failed{callFailed, errors.New("no supported conversion review versions")}
	}
	answer := &apiextensionsv1.ConversionReview{}
	ctx, cancel := context.WithTimeout(ctx, webhook.DefaultTimeout)
	defer cancel()
	if err := c.family.cfg.Webhooks.Call(ctx, clientConfig(hook.ClientConfig), review, answer); err != nil {
		// Not wrapped: the status is what the webhook told us, not what we tell.
		return nil, c.fail(callFailed, "failed: %v", err)
	}
	raw, err := converted(answer, uid, review.APIVersion)
	if err != nil {
		return nil, c.fail(malformed, "failed: %w", err)
	}
	if len(raw) != len(objs) {
		return nil, c.fail(incomplete, "returned %d objects, expected %d", len(raw), len(objs))
	}
	out := make([]*unstructured.Unstructured, len(raw))
	for i := range raw {
		out[i] = &unstructured.Unstructured{}
		if err := out[i].UnmarshalJSON(raw[i].Raw); err != nil {
			return nil, c.fail(invalidObject, "returned invalid converted object at index %d: %w", i, err)
		}
		if err := c.check(objs[i], out[i]); err != nil {
			where := "object"
			if len(objs) > 1 {
				where = fmt.Sprintf("converted object at index %d", i)
			}
			return nil, c.fail(invalidObject, "returned invalid %s: %w", where, err)
		}
	}
	return out, nil
}

func clientConfig(c *apiextensionsv1.WebhookClientConfig) webhook.ClientConfig {
	out := webhook.ClientConfig{CABundle: c.CABundle}
	if c.URL != nil {
		out.URL = *c.URL
	}
	if s := c.Service; s != nil {
		out.Service = &webhook.Service{Namespace: s.Namespace, Name: s.Name}
		if s.Path != nil {
			out.Service.Path = *s.Path
		}
		if s.Port != nil {
			out.Service.Port = *s.Port
		}
	}
	return out
}

// newReview makes the question in the first version that both sides speak; nil
// when there is none. Both versions look the same but for their name.
func newReview(versions []string, objs []*unstructured.Unstructured, to schema.GroupVersionKind) (*apiextensionsv1.ConversionReview, types.UID) {
	for _, v := range versions {
		if v != apiextensionsv1.SchemeGroupVersion.Version && v != apiextensionsv1beta1.SchemeGroupVersion.Version {
			continue
		}
		uid := uuid.NewUUID()
		raw := make([]runtime.RawExtension, len(objs))
		for i, obj := range objs {
			raw[i].Object = obj
		}
		return &apiextensionsv1.ConversionReview{
			TypeMeta: metav1.TypeMeta{Kind: "ConversionReview", APIVersion: apiextensionsv1.GroupName + "/" + v},
			Request: &apiextensionsv1.ConversionRequest{
				UID: uid, DesiredAPIVersion: to.GroupVersion().String(), Objects: raw},
		}, uid
	}
	return nil, ""
}

// converted takes the answer apart. The older version of the question never
// checked to whom the answer was.
func converted(answer *apiextensionsv1.ConversionReview, uid types.UID, asked string) ([]runtime.RawExtension, error) {
	want := apiextensionsv1.SchemeGroupVersion.WithKind("ConversionReview")
	strict := asked == apiextensionsv1.SchemeGroupVersion.String()
	if strict && answer.GroupVersionKind() != want {
		return nil, fmt.Errorf("expected webhook response of %v, got %v", want, answer.GroupVersionKind())
	}
	r := answer.Response
	if r == nil {
		return nil, errors.New("no response provided")
	}
	if strict && r.UID != uid {
		return nil, fmt.Errorf("expected response.uid=%q, got %q", uid, r.UID)
	}
	if r.Result.Status != metav1.StatusSuccess {
		if r.Result.Message != "" {
			return nil, errors.New(r.Result.Message)
		}
		return nil, fmt.Errorf("response.result.status was '%s', not 'Success'", r.Result.Status)
	}
	return r.ConvertedObjects, nil
}

// check refuses another object than the one that was sent. Of its metadata a
// webhook may change labels and annotations; the rest is put back.
func (c conversion) check(in, out *unstructured.Unstructured) error {
	if got := out.GroupVersionKind().GroupVersion(); got != c.to.GroupVersion() {
		return fmt.Errorf("invalid groupVersion (expected %v, received %v)", c.to.GroupVersion(), got)
	}
	if in.GetKind() != out.GetKind() {
		return fmt.Errorf("invalid kind (expected %v, received %v)", in.GetKind(), out.GetKind())
	}
	for _, same := range []struct{ what, want, got string }{
		{"name", in.GetName(), out.GetName()},
		{"namespace", in.GetNamespace(), out.GetNamespace()},
		{"UID", string(in.GetUID()), string(out.GetUID())},
	} {
		if same.want != same.got {
			return fmt.Errorf("must have the same %s: %v != %v", same.what, same.want, same.got)
		}
	}
	return restoreMetadata(in, out)
}

func restoreMetadata(in, out *unstructured.Unstructured) error {
	said, ok := out.Object["metadata"].(map[string]any)
	if !ok {
		if _, has := out.Object["metadata"]; !has {
			return errors.New("missing metadata in converted object")
		}
		return fmt.Errorf("invalid metadata of type %T in converted object", out.Object["metadata"])
	}
	kept, ok := in.Object["metadata"].(map[string]any)
	if !ok {
		kept = map[string]any{}
	}
	kept = runtime.DeepCopyJSON(kept)
	out.Object["metadata"] = kept
	for _, name := range []string{"labels", "annotations"} {
		if err := takeStrings(kept, said, name); err != nil {
			return err
		}
	}
	return nil
}

// takeStrings takes a map of strings over, if it is one.
func takeStrings(kept, said map[string]any, name string) error {
	value, has := said[name]
	if !has || value == nil {
		delete(kept, name)
		return nil
	}
	entries, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("invalid metadata.%s of type %T in converted object", name, value)
	}
	texts := make(map[string]string, len(entries))
	for k, v := range entries {
		text, ok := v.(string)
		if !ok {
			return fmt.Errorf("metadata.%s[%s] must be a string, but is %T in converted object", name, k, v)
		}
		texts[k] = text
	}
	errs := apivalidation.ValidateAnnotations(texts, field.NewPath("metadata", "annotation"))
	if name == "labels" {
		errs = metav1validation.ValidateLabels(texts, field.NewPath("metadata", "labels"))
	}
	if len(errs) > 0 && !sameStrings(kept[name], entries) {
		return errs.ToAggregate()
	}
	kept[name] = entries
	return nil
}

// sameStrings: what was wrong before may stay.
func sameStrings(before any, now map[string]any) bool {
	old, ok := before.(map[string]any)
	if !ok || len(old) != len(now) {
		return false
	}
	for k, v := range now {
		if old[k] != v {
			return false
		}
	}
	return true
}
