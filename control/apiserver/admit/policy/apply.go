package policy

import (
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/control/apiserver/admit/match"
	"github.com/sampan-dev/sampan/control/apiserver/cel"
)

// applied merges the object that an expression came to into obj, as server-side
// apply would, except that nobody comes to own the fields.
func (p *Policies) applied(obj runtime.Object, r *match.Request, v cel.Value) (runtime.Object, error) {
	fields, err := cel.Fields(v)
	if err != nil {
		return nil, err
	}
	gvk := obj.GetObjectKind().GroupVersionKind()
	kind, ok := p.cfg.Table.KindOf(gvk)
	if !ok {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("Resource kind %s not found. There can be a delay between when CustomResourceDefinitions are created and when they are available.", gvk))
	}
	wanted := &unstructured.Unstructured{Object: fields}
	wanted.SetGroupVersionKind(gvk)
	merged, err := merge(p.cfg.Table.Types(kind), obj, wanted)
	if err != nil {
		return nil, fmt.Errorf("error applying patch: %w", err)
	}
	return asLike(merged, obj)
}

// converter turns objects into typed values and back.
type converter interface {
	ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error)
	TypedToObject(v *typed.TypedValue) (runtime.Object, error)
}

func merge(types converter, obj runtime.Object, wanted *unstructured.Unstructured) (runtime.Object, error) {
	change, err := types.ObjectToTyped(wanted)
	if err != nil {
		return nil, fmt.Errorf("failed to convert patch object to typed object: %w", err)
	}
	if whole := atomics(nil, change.Schema(), change.TypeRef(), change.AsValue()); len(whole) > 0 {
		return nil, fmt.Errorf("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: %v", strings.Join(whole, ", "))
	}
	live, err := types.ObjectToTyped(obj, typed.AllowDuplicates)
	if err != nil {
		return nil, fmt.Errorf("failed to convert original object to typed object: %w", err)
	}
	merged, err := live.Merge(change)
	if err != nil {
		return nil, fmt.Errorf("failed to merge patch: %w", err)
	}
	out, err := types.TypedToObject(merged)
	if err != nil {
		return nil, fmt.Errorf("failed to convert typed object to object: %w", err)
	}
	return out, nil
}

// asLike gives obj the Go type of like.
func asLike(obj, like runtime.Object) (runtime.Object, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if _, custom := like.(*unstructured.Unstructured); custom || !ok {
		return obj, nil
	}
	out := reflect.New(reflect.TypeOf(like).Elem()).Interface().(runtime.Object)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, err
	}
	return out, nil
}

// atomics are the paths at which v sets a list, map or struct that can only be set
// as a whole: who sets one mostly does not mean to remove the rest.
func atomics(at fieldpath.Path, s *schema.Schema, ref schema.TypeRef, v value.Value) (found []string) {
	atom, ok := s.Resolve(ref)
	if !ok {
		return nil
	}
	if v.IsMap() && atom.Map != nil {
		if atom.Map.ElementRelationship == schema.Atomic {
			found = append(found, at.String())
		}
		v.AsMap().Iterate(func(key string, item value.Value) bool {
			if f, ok := atom.Map.FindField(key); ok {
				found = append(found, atomics(below(at, fieldpath.PathElement{FieldName: &key}), s, f.Type, item)...)
			}
			return true
		})
	}
	if v.IsList() && atom.List != nil {
		if atom.List.ElementRelationship == schema.Atomic {
			found = append(found, at.String())
		}
		list := v.AsList()
		for i := range list.Length() {
			found = append(found, atomics(below(at, fieldpath.PathElement{Index: &i}), s, atom.List.ElementType, list.At(i))...)
		}
	}
	return found
}

func below(at fieldpath.Path, e fieldpath.PathElement) fieldpath.Path {
	return append(at[:len(at):len(at)], e)
}
