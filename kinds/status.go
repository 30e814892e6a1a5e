package kinds

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// readWrite are the verbs of a subresource that is part of a stored object.
var readWrite = []string{"get", "patch", "update"}

// StatusRules makes the status subresource of a kind: take copies the status of
// body into next. As upstream, a write to the status may also change labels,
// annotations, finalizers and owner references.
func StatusRules[T Object](take func(next, body T), validate func(obj, old T) field.ErrorList) Subresource {
	return Subresource{
		Name:  "status",
		Verbs: readWrite,
		Copy: func(next Object, body runtime.Object) error {
			from, ok := body.(T)
			if !ok {
				return fmt.Errorf("status of %q: body is a %T", next.GetName(), body)
			}
			// In the same process the body may still be the caller's.
			from = from.DeepCopyObject().(T)
			next.SetLabels(from.GetLabels())
			next.SetAnnotations(from.GetAnnotations())
			next.SetFinalizers(from.GetFinalizers())
			next.SetOwnerReferences(from.GetOwnerReferences())
			take(next.(T), from)
			return nil
		},
		ValidateUpdate: func(obj, old Object) field.ErrorList {
			if validate == nil {
				return nil
			}
			return validate(obj.(T), old.(T))
		},
	}
}

// Status is StatusRules for kinds whose status nobody checks.
func Status[T Object](take func(next, body T)) Subresource {
	return StatusRules(take, nil)
}

// StatusOnly is StatusRules for the kinds of which a write to the status changes
// nothing else: their metadata stays as it is, too, as upstream.
func StatusOnly[T Object](take func(next, body T), validate func(obj, old T) field.ErrorList) Subresource {
	sub := StatusRules(take, validate)
	sub.Copy = func(next Object, body runtime.Object) error {
		from, ok := body.(T)
		if !ok {
			return fmt.Errorf("status of %q: body is a %T", next.GetName(), body)
		}
		take(next.(T), from.DeepCopyObject().(T))
		return nil
	}
	return sub
}
