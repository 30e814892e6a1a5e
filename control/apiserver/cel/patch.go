package cel

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"google.golang.org/protobuf/types/known/structpb"
	"k8s.io/apiserver/pkg/cel/mutation"
	"k8s.io/apiserver/pkg/cel/mutation/dynamic"
)

// Fields gives the object that an apply configuration came to, as maps. The types
// of its parts must be named after where they stand.
func Fields(v ref.Val) (map[string]any, error) {
	made, ok := v.(*dynamic.ObjectVal)
	if !ok {
		return nil, fmt.Errorf("unsupported return type from ApplyConfiguration expression: %v", v.Type())
	}
	if err := made.CheckTypeNamesMatchFieldPathNames(); err != nil {
		return nil, fmt.Errorf("type mismatch: %w", err)
	}
	fields, ok := made.Value().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("invalid return type: %T", made.Value())
	}
	return fields, nil
}

// operation is one operation of a JSON patch.
type operation struct {
	Op    string           `json:"op"`
	Path  string           `json:"path"`
	From  string           `json:"from,omitempty"`
	Value *json.RawMessage `json:"value,omitempty"`
}

// PatchJSON gives the JSON patch that an expression came to.
func PatchJSON(v ref.Val) ([]byte, error) {
	list, ok := v.(traits.Lister)
	if !ok {
		return nil, errors.New("type mismatch: JSONPatchType.expression should evaluate to array")
	}
	all := []operation{}
	for it := list.Iterator(); it.HasNext() == types.True; {
		next := it.Next()
		step, ok := next.(*mutation.JSONPatchVal)
		if !ok {
			return nil, fmt.Errorf("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of %T", next)
		}
		op := operation{Op: step.Op, Path: step.Path, From: step.From}
		if step.Val != nil {
			raw, err := valueJSON(step.Val)
			if err != nil {
				return nil, err
			}
			op.Value = &raw
		}
		all = append(all, op)
	}
	return json.Marshal(all)
}

func valueJSON(v ref.Val) (json.RawMessage, error) {
	if made, ok := v.(*dynamic.ObjectVal); ok {
		if err := made.CheckTypeNamesMatchFieldPathNames(); err != nil {
			return nil, fmt.Errorf("type mismatch: %w", err)
		}
	}
	const text = "JSONPath valueExpression evaluated to a type that could not marshal to JSON: %w"
	native, err := v.ConvertToNative(reflect.TypeFor[*structpb.Value]())
	if err != nil {
		return nil, fmt.Errorf(text, err)
	}
	raw, err := json.Marshal(native)
	if err != nil {
		return nil, fmt.Errorf(text, err)
	}
	return raw, nil
}

// IsTrue says that a condition came to true.
func IsTrue(v ref.Val) bool { return v == types.True }

// IsFalse says that a condition came to false; neither is an error.
func IsFalse(v ref.Val) bool { return v == types.False }

// Text is the string that an expression came to; ok is false for anything else,
// and isNull says that it is null.
func Text(v ref.Val) (text string, ok, isNull bool) {
	switch t := v.(type) {
	case types.String:
		return string(t), true, false
	case types.Null:
		return "", false, true
	}
	text, ok = v.Value().(string)
	return text, ok, false
}
