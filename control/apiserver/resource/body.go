package resource

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// believed is how long a body may say that it is for room to be made before it comes.
const believed = 64 << 10

// wholeBody reads the body, into one piece of memory where its length is told.
func (x *exchange) wholeBody() ([]byte, error) {
	body := http.MaxBytesReader(x.w, x.r.Body, MaxBody)
	if n := x.r.ContentLength; n >= 0 && n <= believed {
		b := bytes.NewBuffer(make([]byte, 0, n+bytes.MinRead)) // which is what it wants to find
		_, err := b.ReadFrom(body)
		return b.Bytes(), err
	}
	return io.ReadAll(body)
}

// readBody reads and decodes what the verb carries.
func (x *exchange) readBody() error {
	switch x.req.Verb {
	case verbCreate, verbUpdate, verbPatch, verbDelete, verbDeleteCollection:
	default:
		return nil
	}
	data, err := x.wholeBody()
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", MaxBody))
	case err != nil:
		return apierrors.NewBadRequest(fmt.Sprintf("read the request's body: %v", err))
	}
	contentType := x.r.Header.Get("Content-Type")
	if x.req.Verb == verbPatch {
		kind, _, _ := strings.Cut(contentType, ";")
		x.req.PatchType, x.req.PatchData = types.PatchType(strings.TrimSpace(kind)), data
		if !slices.Contains(strings.Split(patchTypes(x.call.kind), ", "), string(x.req.PatchType)) {
			return unsupported(patchTypes(x.call.kind))
		}
		return x.countPatch(data)
	}
	m, ok := mediaOf(contentType)
	if !ok {
		return unsupported(acceptedMedia)
	}
	if x.req.Verb == verbCreate || x.req.Verb == verbUpdate {
		return x.decodeBody(data, m)
	}
	return x.decodeDeleteOptions(data, m)
}

// decodeDeleteOptions reads the options that a DELETE may carry in its body.
func (x *exchange) decodeDeleteOptions(data []byte, m mediaType) error {
	if len(data) == 0 {
		return nil
	}
	want := schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}
	opts := &metav1.DeleteOptions{}
	obj, _, _, err := x.server.codec.decode(data, m, want, opts, false)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	read, ok := obj.(*metav1.DeleteOptions)
	if !ok {
		return apierrors.NewBadRequest("decoded object cannot be converted to DeleteOptions")
	}
	read.TypeMeta = metav1.TypeMeta{}
	x.req.Delete = *read
	return nil
}

// decodeBody reads the object of a create or update.
func (x *exchange) decodeBody(data []byte, m mediaType) error {
	c := x.call
	want := c.gvk()
	into := c.newBody()
	if err := x.count(data, m, into); err != nil {
		return err
	}
	strictness := c.strictness()
	obj, got, strict, err := x.server.codec.decode(data, m, want, into, strictness != metav1.FieldValidationIgnore)
	if err == nil && got != nil && got.GroupVersion() != want.GroupVersion() {
		return apierrors.NewBadRequest(fmt.Sprintf(
			"the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), want.GroupVersion()))
	}
	if err == nil && got != nil && got.Kind != want.Kind && c.kind.Custom != nil && !c.foreign() {
		return apierrors.NewInvalid(want.GroupKind(), obj.(metav1.Object).GetName(), field.ErrorList{
			field.Invalid(field.NewPath("kind"), got.Kind, fmt.Sprintf("must be %v", want.Kind))})
	}
	if err == nil && got != nil && got.Kind != want.Kind {
		err = fmt.Errorf("no kind %q is served here", got.Kind)
	}
	if err == nil {
		strict, err = coerce(c.kind, obj, strict)
	}
	if err == nil {
		err = sound(obj, m)
	}
	if err == nil && len(strict) > 0 && strictness == metav1.FieldValidationStrict {
		err = runtime.NewStrictDecodingError(strict)
	}
	if err != nil {
		return undecodable(want, got, err)
	}
	if strictness == metav1.FieldValidationWarn {
		for _, e := range strict {
			x.warn(e.Error())
		}
	}
	x.req.Body = obj
	return nil
}

// undecodable is 400 in upstream's words.
func undecodable(want schema.GroupVersionKind, got *schema.GroupVersionKind, err error) error {
	if got != nil && got.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v",
			got.Kind, got.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf(
		"the object provided is unrecognized (must be of type %s): %v", want.Kind, err))
}
