package crd

import (
	"context"
	"errors"
	"fmt"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
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

// convert gives obj in another version; obj is left alone, and is the answer when
// it is of that version already. The result is pruned by its version's schema.
func (f *family) convert(obj *unstructured.Unstructured, to *version) (*unstructured.Unstructured, error) {
	if obj.GetAPIVersion() == to.gvk.GroupVersion().String() {
		return obj, nil
	}
	var out *unstructured.Unstructured
	var err error
	conversion := f.def.Spec.Conversion
	if conversion == nil || conversion.Strategy != apiextensionsv1.WebhookConverter || empty(obj) {
		out = obj.DeepCopy()
		out.SetAPIVersion(to.gvk.GroupVersion().String())
	} else if out, err = f.ask(obj, to.gvk); err != nil {
		return nil, err
	}
	if _, err := to.coerce(out.Object, strictly); err != nil {
		return nil, err
	}
	return out, nil
}

// empty objects have nothing to convert: only a kind and a version.
func empty(obj *unstructured.Unstructured) bool {
	_, kind := obj.Object["kind"]
	_, version := obj.Object["apiVersion"]
	return len(obj.Object) == 2 && kind && version
}

// ask lets the definition's webhook convert one object.
func (f *family) ask(obj *unstructured.Unstructured, to schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	hook := f.def.Spec.Conversion.Webhook
	from := obj.GroupVersionKind()
	if hook == nil || hook.ClientConfig == nil {
		return nil, fmt.Errorf("conversion webhook for %v failed: no webhook is configured", from)
	}
	review, uid := newReview(hook.ConversionReviewVersions, obj, to)
	if review == nil {
		return nil, errors.New("no supported conversion review versions")
	}
	answer := &apiextensionsv1.ConversionReview{}
	ctx, cancel := context.WithTimeout(context.Background(), webhook.DefaultTimeout)
	defer cancel()
	if err := f.cfg.Webhooks.Call(ctx, clientConfig(hook.ClientConfig), review, answer); err != nil {
		// Not wrapped: the status is what the webhook told us, not what we tell.
		return nil, fmt.Errorf("conversion webhook for %v failed: %v", from, err) //nolint:errorlint // as above
	}
	raw, err := converted(answer, uid, review.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("conversion webhook for %v failed: %w", from, err)
	}
	if len(raw) != 1 {
		return nil, fmt.Errorf("conversion webhook for %v returned %d objects, expected %d", from, len(raw), 1)
	}
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON(raw[0].Raw); err != nil {
		return nil, err
	}
	return out, f.checkConverted(obj, out, to)
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
func newReview(versions []string, obj *unstructured.Unstructured, to schema.GroupVersionKind) (*apiextensionsv1.ConversionReview, types.UID) {
	for _, v := range versions {
		if v != apiextensionsv1.SchemeGroupVersion.Version && v != apiextensionsv1beta1.SchemeGroupVersion.Version {
			continue
		}
		uid := uuid.NewUUID()
		return &apiextensionsv1.ConversionReview{
			TypeMeta: metav1.TypeMeta{Kind: "ConversionReview", APIVersion: apiextensionsv1.GroupName + "/" + v},
			Request: &apiextensionsv1.ConversionRequest{
				UID: uid, DesiredAPIVersion: to.GroupVersion().String(), Objects: []runtime.RawExtension{{Object: obj}}},
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

// checkConverted refuses another object than the one that was sent. Of its
// metadata a webhook may change labels and annotations; the rest is put back.
func (f *family) checkConverted(in, out *unstructured.Unstructured, to schema.GroupVersionKind) error {
	from := in.GroupVersionKind()
	if got := out.GroupVersionKind().GroupVersion(); got != to.GroupVersion() {
		return fmt.Errorf("conversion webhook for %v returned invalid object at index 0: invalid groupVersion (expected %v, received %v)", from, to.GroupVersion(), got)
	}
	if in.GetKind() != out.GetKind() {
		return fmt.Errorf("conversion webhook for %v returned invalid object at index 0: invalid kind (expected %v, received %v)", from, in.GetKind(), out.GetKind())
	}
	for _, same := range []struct{ what, want, got string }{
		{"name", in.GetName(), out.GetName()},
		{"namespace", in.GetNamespace(), out.GetNamespace()},
		{"UID", string(in.GetUID()), string(out.GetUID())},
	} {
		if same.want != same.got {
			return fmt.Errorf("conversion webhook for %v returned invalid object: must have the same %s: %v != %v", from, same.what, same.want, same.got)
		}
	}
	if err := restoreMetadata(in, out); err != nil {
		return fmt.Errorf("conversion webhook for %v returned invalid metadata: %w", from, err)
	}
	return nil
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
