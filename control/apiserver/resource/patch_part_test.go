package resource

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/sampan-dev/sampan/kinds"
)

// What is taken apart is what the patch names, and what becomes of the object is what
// becomes of it when all is taken apart: objects of every kind, filled at random, and
// patches that name some of their fields, with directives and without.
func TestPartedAsWhole(t *testing.T) {
	s, f := openServer(t), &filler{rand.New(rand.NewPCG(1, 2))}
	for _, k := range s.Kinds() {
		if _, ok := k.New().(runtime.Unstructured); ok {
			continue
		}
		for round := range 30 {
			old, next := k.New(), k.New()
			f.fill(reflect.ValueOf(old).Elem(), 0, 1+round%8)
			f.fill(reflect.ValueOf(next).Elem(), 0, 1+round%8)
			old.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "m", Time: &metav1.Time{Time: time.Unix(1, 0)}, FieldsV1: metav1.NewFieldsV1(`{"f:a":{}}`)}})
			old = readAgain(t, k, old)
			change := f.someOf(t, next)
			want, wantErr := mergedWhole(old, change, k.New())
			parts, into := partsOf(old, change, k.New()), k.New()
			got, gotErr := mergedWhole(parts.named, change, into)
			if (gotErr == nil) != (wantErr == nil) {
				t.Fatalf("%s: %v, want %v", k.GVK, gotErr, wantErr)
			}
			if gotErr != nil {
				continue
			}
			if got, want := asJSON(t, parts.joined(got)), asJSON(t, want); got != want {
				t.Fatalf("%s, patch %s of %s\ngot  %s\nwant %s", k.GVK, asJSON(t, change), asJSON(t, old), got, want)
			}
		}
	}
}

// readAgain is an object as it is once it has been JSON: what JSON does not keep goes, as
// it would with whatever is taken apart.
func readAgain(t *testing.T, k *kinds.Kind, obj kinds.Object) kinds.Object {
	t.Helper()
	content, err := toMap(obj)
	if err != nil {
		t.Fatal(err)
	}
	again := k.New()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, again); err != nil {
		t.Fatal(err)
	}
	return again
}

// someOf is a patch that names some of the fields of an object, or a field of its metadata.
func (f *filler) someOf(t *testing.T, obj kinds.Object) map[string]any {
	t.Helper()
	change, err := toMap(obj)
	if err != nil {
		t.Fatal(err)
	}
	for key := range change {
		if f.IntN(2) == 0 {
			delete(change, key)
		}
	}
	if f.IntN(3) == 0 {
		change["metadata"] = map[string]any{"labels": map[string]any{"a": "b", "c": nil}}
	}
	if f.IntN(8) == 0 {
		change["$patch"] = "replace"
	}
	if meta, ok := change["metadata"].(map[string]any); ok && f.IntN(8) == 0 {
		meta["$patch"] = "replace"
	}
	if f.IntN(8) == 0 {
		change["status"] = nil
	}
	return change
}

func mergedWhole(old kinds.Object, change map[string]any, into kinds.Object) (kinds.Object, error) {
	before, err := toMap(old)
	if err != nil {
		return nil, err
	}
	after, err := strategicpatch.StrategicMergeMapPatch(before, runtime.DeepCopyJSON(change), into)
	if err != nil {
		return nil, err
	}
	return into, runtime.DefaultUnstructuredConverter.FromUnstructured(after, into)
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An agent's patch takes neither the specification apart nor the record of owners, and
// nothing of the object that it is made from is in its result.
func TestPartedShares(t *testing.T) {
	old := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
	parts := partsOf(old, map[string]any{"status": map[string]any{}, "metadata": map[string]any{"uid": "u"}}, &corev1.Pod{})
	named := parts.named.(*corev1.Pod)
	if named.Spec.Containers != nil || named.ManagedFields != nil || named.Name != "p" || named.Status.Phase != corev1.PodPending {
		t.Errorf("the patch is taken to name %+v", named)
	}
	out := parts.joined(named.DeepCopy()).(*corev1.Pod)
	out.Spec.Containers[0].Name, out.ManagedFields[0].Manager = "changed", "changed"
	if old.Spec.Containers[0].Name != "c" || old.ManagedFields[0].Manager != "m" {
		t.Errorf("the old object was changed: %+v", old)
	}
}
