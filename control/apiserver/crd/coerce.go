package crd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"github.com/sampan-dev/sampan/kinds"
)

// How coerce takes what is wrong.
type manner int

const (
	// strictly refuses malformed metadata: what a client sends, or a webhook.
	strictly manner = iota
	// leniently drops it: what has been stored long ago.
	leniently
)

// coerce does to a decoded tree what decoding into a Go type would: metadata has
// its types, unknown fields go (and are named), and nulls that the schema does not
// allow too.
func (v *version) coerce(tree map[string]any, how manner) (unknown []string, err error) {
	kind, hasKind, err := unstructured.NestedString(tree, "kind")
	if err != nil {
		return nil, err
	}
	apiVersion, hasVersion, err := unstructured.NestedString(tree, "apiVersion")
	if err != nil {
		return nil, err
	}
	meta, hasMeta, unknown, err := objectmeta.GetObjectMetaWithOptions(tree, objectmeta.ObjectMetaOptions{
		DropMalformedFields: how == leniently, ReturnUnknownFieldPaths: how == strictly})
	if err != nil {
		return nil, err
	}
	if !v.family.preserves() {
		unknown = append(unknown, pruning.PruneWithOptions(tree, v.schema, true,
			structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: how == strictly})...)
		defaulting.PruneNonNullableNullsWithoutDefaults(tree, v.schema)
	}
	wrong, embedded := objectmeta.CoerceWithOptions(nil, tree, v.schema, false, objectmeta.CoerceOptions{
		DropInvalidFields: how == leniently, ReturnUnknownFieldPaths: how == strictly})
	if wrong != nil {
		return nil, wrong
	}
	if hasKind {
		tree["kind"] = kind
	}
	if hasVersion {
		tree["apiVersion"] = apiVersion
	}
	if hasMeta {
		err = restore(tree, meta, how)
	}
	return append(unknown, embedded...), err
}

func restore(tree map[string]any, meta *metav1.ObjectMeta, how manner) error {
	if how == leniently && meta.Generation == 0 {
		meta.Generation = 1 // from before objects had one
	}
	return objectmeta.SetObjectMeta(tree, meta)
}

// load makes objects of this version of stored bytes of any version: as that
// version they are pruned and defaulted, and then converted, all together.
func (v *version) load(ctx context.Context, data ...[]byte) ([]kinds.Object, error) {
	stored := make([]*unstructured.Unstructured, len(data))
	for i, raw := range data {
		obj, err := v.read(raw)
		if err != nil {
			return nil, err
		}
		stored[i] = obj
	}
	all, err := v.family.convert(ctx, v, stored...)
	if err != nil {
		return nil, err
	}
	out := make([]kinds.Object, len(all))
	for i, obj := range all {
		obj.SetGroupVersionKind(v.gvk)
		out[i] = obj
	}
	return out, nil
}

// read makes an object of stored bytes, of the version that they are of.
func (v *version) read(data []byte) (*unstructured.Unstructured, error) {
	tree := map[string]any{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &tree); err != nil {
		return nil, fmt.Errorf("decode stored %q: %w", v.gvk.Kind, err)
	}
	obj := &unstructured.Unstructured{Object: tree}
	from, ok := v.family.versions[obj.GroupVersionKind().Version]
	if !ok || obj.GroupVersionKind().Group != v.gvk.Group {
		return nil, fmt.Errorf("request to convert CR from an invalid group/version: %s", obj.GetAPIVersion())
	}
	if _, err := from.coerce(tree, leniently); err != nil {
		return nil, fmt.Errorf("decode stored %q: %w", v.gvk.Kind, err)
	}
	defaulting.Default(tree, from.schema)
	return obj, nil
}

// save gives the bytes that are stored for an object of this version: those of the
// stored version.
func (v *version) save(ctx context.Context, obj kinds.Object) ([]byte, error) {
	own, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("store %q: not a custom resource: %T", v.gvk.Kind, obj)
	}
	if own.GetAPIVersion() != v.gvk.GroupVersion().String() {
		own.SetGroupVersionKind(v.gvk)
	}
	stored, err := v.family.convert(ctx, v.family.hub, own)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(stored[0].Object); err != nil {
		return nil, fmt.Errorf("encode %q: %w", v.gvk.Kind, err)
	}
	return b.Bytes(), nil
}

// convertFor converts for the record of field owners. A version that the
// definition no longer has is an error that the record understands.
func (f *family) convertFor(obj kinds.Object, to schema.GroupVersionKind) (kinds.Object, error) {
	own, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("convert %q: not a custom resource: %T", to.Kind, obj)
	}
	into, known := f.versions[to.Version]
	if !known || to.GroupKind() != f.hub.gvk.GroupKind() {
		return nil, unknownVersion(own.GroupVersionKind(), to)
	}
	if _, known := f.versions[own.GroupVersionKind().Version]; !known {
		return nil, unknownVersion(own.GroupVersionKind(), to)
	}
	all, err := f.convert(context.Background(), into, own) // the record knows no context
	if err != nil {
		return nil, err
	}
	return all[0], nil
}
