package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/sampan-dev/sampan/kinds"
)

// limitCopies bounds what the "copy" operations of one JSON patch may add up to.
// The library knows only a limit for the whole process.
var limitCopies = sync.OnceFunc(func() { jsonpatch.AccumulatedCopySizeLimit = MaxBody })

// patch changes an object, or a subresource of it, by one of the patch formats.
// A patch is applied anew to the latest version whenever somebody was faster.
func (c *call) patch(ctx context.Context) (*answer, error) {
	if errs := validation.ValidatePatchOptions(&c.req.Patch, c.req.PatchType); len(errs) > 0 {
		return nil, badOptions("PatchOptions", errs)
	}
	if !c.applies() && !json.Valid(c.req.PatchData) {
		return nil, apierrors.NewBadRequest("invalid JSON patch")
	}
	if c.sub != nil && c.sub.Copy == nil {
		return nil, apierrors.NewMethodNotSupported(c.gr(), verbPatch)
	}
	apply := c.applies()
	return c.edit(ctx, edit{
		create:  apply && c.sub == nil,
		tracked: apply,
		next: func(old kinds.Object) (kinds.Object, error) {
			patched, err := c.patched(old)
			if err != nil {
				return nil, err
			}
			if err := c.matchNamespace(patched); err != nil {
				return nil, err
			}
			if patched.GetName() == "" {
				return nil, c.nameless()
			}
			return patched, c.matchName(patched)
		},
	})
}

// patched is what the patch makes of current, the object or its face as the
// subresource; nil when an apply creates.
func (c *call) patched(current kinds.Object) (kinds.Object, error) {
	var out runtime.Object
	var err error
	switch c.req.PatchType {
	case types.JSONPatchType, types.MergePatchType:
		out, err = c.jsonPatched(current)
	case types.StrategicMergePatchType:
		out, err = c.strategicPatched(current)
	case types.ApplyYAMLPatchType, types.ApplyCBORPatchType:
		out, err = c.applied(current)
	default:
		return nil, unsupported(patchTypes(c.kind))
	}
	if err != nil {
		return nil, err
	}
	obj, ok := out.(kinds.Object)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("patch of %s made a %T", c.req.Target, out))
	}
	if says := obj.GetObjectKind().GroupVersionKind(); c.kind.Custom != nil && !c.foreign() && !says.Empty() {
		if err := misnamed(c.gvk(), says, obj.GetName()); err != nil {
			return nil, err
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(c.gvk())
	if !c.foreign() {
		c.setDefaults(obj)
	}
	return obj, nil
}

// patchTypes are the patch formats that a kind takes.
func patchTypes(k *kinds.Kind) string {
	list := "application/json-patch+json, application/merge-patch+json, "
	if _, ok := k.New().(runtime.Unstructured); !ok {
		list += "application/strategic-merge-patch+json, "
	}
	return list + "application/apply-patch+yaml, application/apply-patch+cbor"
}

// jsonPatched applies a JSON patch or a JSON merge patch to the JSON form.
func (c *call) jsonPatched(current runtime.Object) (runtime.Object, error) {
	before, err := encode(c.server.codec.json, current)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	var after []byte
	var wrong []error
	if c.req.PatchType == types.JSONPatchType {
		after, wrong, err = c.runOperations(before)
	} else {
		after, wrong, err = c.mergeJSON(before)
	}
	if err != nil {
		return nil, err
	}
	into := c.newBody()
	out, got, strict, err := c.server.codec.decode(after, mediaJSON, c.gvk(), into, c.strictness() != metav1.FieldValidationIgnore)
	if err == nil && reflect.TypeOf(out) != reflect.TypeOf(into) { // the patch has made an object of another kind of it
		err = fmt.Errorf("converting (%s.%s) to (%s.%s): unknown conversion", got.Version, got.Kind, internalPackage(c.gvk().Group), c.gvk().Kind)
	}
	if err == nil {
		strict, err = coerce(c.kind, out, strict)
	}
	if err != nil {
		return nil, badPatch(string(after), err)
	}
	return out, c.judgeStrict(append(wrong, strict...), string(after))
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

func (c *call) runOperations(before []byte) (after []byte, wrong []error, err error) {
	if c.strictness() != metav1.FieldValidationIgnore {
		var ops []operation
		if wrong, err = kjson.UnmarshalStrict(c.req.PatchData, &ops); err != nil {
			return nil, nil, apierrors.NewBadRequest(strings.Replace(fmt.Sprintf("error decoding patch: %v", err), "resource.operation", "handlers.jsonPatchOp", 1))
		}
		for i, e := range wrong {
			wrong[i] = fmt.Errorf("json patch %w", e)
		}
	}
	ops, err := jsonpatch.DecodePatch(c.req.PatchData)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if len(ops) > MaxPatchOperations {
		return nil, nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
			"The allowed maximum operations in a JSON patch is %d, got %d", MaxPatchOperations, len(ops)))
	}
	limitCopies()
	after, err = ops.Apply(before)
	if err != nil {
		return nil, nil, unprocessable(err)
	}
	return after, wrong, nil
}

func (c *call) mergeJSON(before []byte) (after []byte, wrong []error, err error) {
	if c.strictness() != metav1.FieldValidationIgnore {
		if wrong, err = kjson.UnmarshalStrict(c.req.PatchData, &map[string]any{}); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
	}
	after, err = jsonpatch.MergePatch(before, c.req.PatchData)
	if errors.Is(err, jsonpatch.ErrBadJSONPatch) {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if err != nil {
		return nil, nil, plainStatus(http.StatusInternalServerError, metav1.StatusReasonUnknown, err.Error())
	}
	return after, wrong, nil
}

// strategicPatched merges lists by their keys, as the Go types' tags say.
func (c *call) strategicPatched(current kinds.Object) (runtime.Object, error) {
	if _, ok := current.(runtime.Unstructured); ok {
		return nil, unsupported(patchTypes(c.kind))
	}
	change := map[string]any{}
	checked := c.strictness() != metav1.FieldValidationIgnore
	var wrong []error
	var err error
	if checked {
		wrong, err = kjson.UnmarshalStrict(c.req.PatchData, &change)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(c.req.PatchData, &change)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	into := c.newBody()
	parts := partsOf(current, change, into)
	before, err := toMap(parts.named)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	after, err := strategicpatch.StrategicMergeMapPatch(before, change, into)
	if err != nil {
		return nil, strategicError(err)
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(after, into, checked)
	if strict, ok := runtime.AsStrictDecodingError(err); ok {
		wrong, err = append(wrong, strict.Errors()...), nil
	}
	if err != nil {
		return nil, badPatch(fmt.Sprintf("%+v", change), err)
	}
	if len(wrong) > 0 {
		err = c.judgeStrict(wrong, fmt.Sprintf("%+v", change))
	}
	return parts.joined(into), err
}

// strategicError says whose fault a failed strategic merge is, as upstream does.
func strategicError(err error) error {
	for _, unfit := range []error{mergepatch.ErrNoListOfLists, mergepatch.ErrPatchContentNotMatchRetainKeys} {
		if errors.Is(err, unfit) {
			return unprocessable(err)
		}
	}
	for _, malformed := range []error{
		mergepatch.ErrBadJSONDoc, mergepatch.ErrBadPatchFormatForPrimitiveList, mergepatch.ErrBadPatchFormatForRetainKeys,
		mergepatch.ErrBadPatchFormatForSetElementOrderList, mergepatch.ErrUnsupportedStrategicMergePatchFormat,
	} {
		if errors.Is(err, malformed) {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	return plainStatus(http.StatusInternalServerError, metav1.StatusReasonUnknown, err.Error())
}

func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

// badPatch is 422 for a patch whose result is no object of the kind.
func badPatch(text string, err error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{
		field.Invalid(field.NewPath("patch"), text, err.Error()),
	})
}

// strictness is what the client wants done about unknown and duplicate fields.
func (c *call) strictness() string {
	asked := map[string]string{
		verbCreate: c.req.Create.FieldValidation,
		verbUpdate: c.req.Update.FieldValidation,
		verbPatch:  c.req.Patch.FieldValidation,
	}[c.req.Verb]
	if asked == "" {
		return metav1.FieldValidationWarn
	}
	return asked
}

// judgeStrict refuses, or warns of, a patch with unknown or duplicate fields.
func (c *call) judgeStrict(wrong []error, text string) error {
	if len(wrong) == 0 {
		return nil
	}
	switch c.strictness() {
	case metav1.FieldValidationStrict:
		return badPatch(text, runtime.NewStrictDecodingError(wrong))
	case metav1.FieldValidationWarn:
		for _, e := range wrong {
			c.req.warn(e.Error())
		}
	}
	return nil
}
