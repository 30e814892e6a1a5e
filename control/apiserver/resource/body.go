package resource

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
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
	"sigs.k8s.io/yaml"
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
	if runtime.IsNotRegisteredError(err) { // clients name the version of what they delete, or of metadata
		var own []byte
		if own, err = unversioned(data); err == nil {
			obj, _, _, err = x.server.codec.decode(own, mediaJSON, want, opts, false)
		}
	}
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	read, ok := obj.(*metav1.DeleteOptions)
	if !ok {
		var said metav1.TypeMeta
		_ = yaml.Unmarshal(data, &said) // what cannot be read so, such as protobuf, says it below
		version := cmp.Or(said.APIVersion, obj.GetObjectKind().GroupVersionKind().Version, "meta.k8s.io/v1")
		return apierrors.NewBadRequest(fmt.Sprintf("no kind %q is registered for version %q in scheme \"pkg/runtime/scheme.go:111\"",
			obj.GetObjectKind().GroupVersionKind().Kind, version))
	}
	read.TypeMeta = metav1.TypeMeta{}
	x.req.Delete = *read
	return nil
}

// unversioned is an encoded object in JSON without its version.
func unversioned(data []byte) ([]byte, error) {
	fields := map[string]any{}
	if err := yaml.Unmarshal(data, &fields); err != nil { // JSON is YAML
		return nil, fmt.Errorf("decode an object of an unknown version: %w", err)
	}
	delete(fields, "apiVersion")
	return json.Marshal(fields)
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
	if runtime.IsNotRegisteredError(err) && got != nil && c.alike(*got) {
		if data, err = unversioned(data); err == nil {
			obj, got, strict, err = x.server.codec.decode(data, mediaJSON, want, into, strictness != metav1.FieldValidationIgnore)
		}
	}
	if err == nil && got != nil && got.GroupVersion() != want.GroupVersion() && (got.Kind == want.Kind || c.kind.Custom != nil) {
		return apierrors.NewBadRequest(fmt.Sprintf(
			"the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), want.GroupVersion()))
	}
	if err == nil && got != nil && got.Kind != want.Kind && c.kind.Custom != nil && !c.foreign() {
		return misnamed(want, *got, obj.(metav1.Object).GetName())
	}
	if err == nil && got != nil && got.Kind != want.Kind {
		err = fmt.Errorf("converting (%s.%s) to (%s.%s): unknown conversion", got.Version, got.Kind, internalPackage(want.Group), want.Kind)
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
		return undecodable(want, got, err, data)
	}
	if strictness == metav1.FieldValidationWarn {
		for _, e := range strict {
			warnStrict(x.req, e)
		}
	}
	x.req.Body = obj
	return nil
}

// alike says that a body may be of the kind and version, although it is not the one
// that is served: it has the same fields.
func (c *call) alike(got schema.GroupVersionKind) bool {
	return c.sub != nil && slices.Contains(c.sub.Alike, got)
}

// internalPackage is what upstream calls the package of a group's kinds.
func internalPackage(group string) string {
	if group == "" || group == "events.k8s.io" {
		return "core"
	}
	name, _, _ := strings.Cut(group, ".")
	return name
}

// yamlMistakes precedes the list of what is wrong in the library's error.
const yamlMistakes = "yaml: unmarshal errors:\n"

// warnStrict warns of an unknown or duplicate field; of duplicates in YAML, which come
// together, one by one.
func warnStrict(r *Request, mistake error) {
	text := mistake.Error()
	_, list, several := strings.Cut(text, yamlMistakes)
	if !several {
		r.warn(text)
		return
	}
	for line := range strings.SplitSeq(list, "\n") {
		r.warn(strings.TrimSpace(line))
	}
}

// misnamed is 422 for an object of a custom kind that says it is of another; nil where
// it does not.
func misnamed(want, got schema.GroupVersionKind, name string) error {
	var errs field.ErrorList
	if got.Kind != want.Kind {
		errs = append(errs, field.Invalid(field.NewPath("kind"), got.Kind, fmt.Sprintf("must be %v", want.Kind)))
	}
	if got.GroupVersion() != want.GroupVersion() {
		errs = append(errs, field.Invalid(field.NewPath("apiVersion"), got.GroupVersion().String(), fmt.Sprintf("must be %v", want.GroupVersion())))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: want.Group, Kind: got.Kind}, name, errs)
}

// undecodable is 400 in upstream's words.
func undecodable(want schema.GroupVersionKind, got *schema.GroupVersionKind, err error, data []byte) error {
	if got != nil && got.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v",
			got.Kind, got.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf(
		"the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, beginning(data)))
}

// maxQuoted is how many bytes of a body that cannot be read are told.
const maxQuoted = 30

// beginning is what a body begins with: as it is where it looks like JSON, else in
// hexadecimal.
func beginning(data []byte) string {
	if len(data) == 0 {
		return "<empty>"
	}
	head, rest := data, ""
	if len(data) > maxQuoted {
		head, rest = data[:maxQuoted], " ..."
	}
	if data[0] == '{' {
		return string(head) + rest
	}
	return hex.EncodeToString(head) + rest
}
