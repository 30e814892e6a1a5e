package resource

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// sound refuses an object that protobuf can carry and JSON cannot: bytes that are
// to be JSON, and are not. Stored, it would be in the way of everybody who lists
// its kind.
func sound(obj runtime.Object, m mediaType) error {
	if m != mediaProtobuf || !holdsRaw(reflect.TypeOf(obj)) {
		return nil
	}
	if _, err := json.Marshal(obj); err != nil {
		return fmt.Errorf("it cannot be written as JSON: %w", err)
	}
	return nil
}

// raw are the types whose content is JSON, unread.
var raw = map[reflect.Type]bool{
	reflect.TypeFor[runtime.RawExtension]():            true,
	reflect.TypeFor[apiextensionsv1.JSON]():            true,
	reflect.TypeFor[metav1.FieldsV1]():                 false, // the field manager drops what it cannot read
	reflect.TypeFor[metav1.ObjectMeta]():               false,
	reflect.TypeFor[metav1.Time]():                     false,
	reflect.TypeFor[apiextensionsv1.JSONSchemaProps](): true,
}

// holders remembers which types hold any of raw.
var holders sync.Map // reflect.Type → bool

func holdsRaw(t reflect.Type) bool {
	if known, ok := holders.Load(t); ok {
		return known.(bool)
	}
	holds := searchRaw(t, map[reflect.Type]bool{})
	holders.Store(t, holds)
	return holds
}

func searchRaw(t reflect.Type, seen map[reflect.Type]bool) bool {
	if is, ok := raw[t]; ok {
		return is
	}
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Array:
		return searchRaw(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if searchRaw(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}
