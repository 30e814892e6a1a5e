package kinds

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Scaled is what a kind with a scale subresource tells about itself.
type Scaled[T Object] struct {
	// Replicas points to the wanted number of replicas; it may point to nil.
	Replicas func(obj T) **int32
	// Current is how many there are.
	Current func(obj T) int32
	// Selector is the pods' selector in its string form.
	Selector func(obj T) string
}

// ScaleOf makes the autoscaling/v1 scale subresource of a kind.
func ScaleOf[T Object](s Scaled[T]) Subresource {
	return Subresource{
		Name:  "scale",
		GVK:   autoscalingv1.SchemeGroupVersion.WithKind("Scale"),
		Verbs: readWrite,
		New:   func() runtime.Object { return &autoscalingv1.Scale{} },
		Show: func(obj Object) runtime.Object {
			typed := obj.(T)
			return &autoscalingv1.Scale{
				TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: "autoscaling/v1"},
				ObjectMeta: metav1.ObjectMeta{
					Name:              obj.GetName(),
					Namespace:         obj.GetNamespace(),
					UID:               obj.GetUID(),
					ResourceVersion:   obj.GetResourceVersion(),
					CreationTimestamp: obj.GetCreationTimestamp(),
				},
				Spec:   autoscalingv1.ScaleSpec{Replicas: Deref(*s.Replicas(typed))},
				Status: autoscalingv1.ScaleStatus{Replicas: s.Current(typed), Selector: s.Selector(typed)},
			}
		},
		Copy: func(next Object, body runtime.Object) error {
			scale, ok := body.(*autoscalingv1.Scale)
			if !ok {
				return fmt.Errorf("scale of %q: body is a %T", next.GetName(), body)
			}
			replicas := s.Replicas(next.(T))
			NextGeneration(next, next, Deref(*replicas) != scale.Spec.Replicas)
			wanted := scale.Spec.Replicas
			*replicas = &wanted
			return nil
		},
		ValidateUpdate: func(obj, _ Object) field.ErrorList {
			return NonNegative(int64(Deref(*s.Replicas(obj.(T)))), NewPath("spec").Child("replicas"))
		},
	}
}
