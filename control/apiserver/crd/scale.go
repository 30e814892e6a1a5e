package crd

import (
	"fmt"
	"math"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// scalePart is the scale subresource: three fields of the object as an
// autoscaling/v1 Scale.
func (v *version) scalePart(s *apiextensionsv1.CustomResourceSubresourceScale) kinds.Subresource {
	return kinds.Subresource{
		Name:     "scale",
		GVK:      autoscalingv1.SchemeGroupVersion.WithKind("Scale"),
		Verbs:    []string{"get", "patch", "update"},
		Replicas: strings.TrimPrefix(s.SpecReplicasPath, "."),
		New:      func() runtime.Object { return &autoscalingv1.Scale{} },
		Show:     func(obj kinds.Object) runtime.Object { return scaleOf(obj, s) },
		Copy: func(next kinds.Object, body runtime.Object) error {
			scale, ok := body.(*autoscalingv1.Scale)
			if !ok {
				return fmt.Errorf("scale of %q: body is a %T", next.GetName(), body)
			}
			if scale.Spec.Replicas == unset {
				return apierrors.NewBadRequest(fmt.Sprintf("the spec replicas field %q cannot be empty", s.SpecReplicasPath))
			}
			before, had, err := unstructured.NestedInt64(content(next), steps(s.SpecReplicasPath)...)
			if err != nil {
				return apierrors.NewInternalError(err)
			}
			wanted := int64(scale.Spec.Replicas)
			kinds.NextGeneration(next, next, !had || before != wanted)
			return unstructured.SetNestedField(content(next), wanted, steps(s.SpecReplicasPath)...)
		},
	}
}

// unset are the wanted replicas of an object that says nothing of them: a change of
// its scale has to. Nobody is shown them (resource.Server). Upstream's.
const unset = math.MinInt32

// scaleOf reads the fields; what is not there, or not a number, shows as zero, or as
// unset.
func scaleOf(obj kinds.Object, s *apiextensionsv1.CustomResourceSubresourceScale) *autoscalingv1.Scale {
	tree := content(obj)
	wanted, has, _ := unstructured.NestedInt64(tree, steps(s.SpecReplicasPath)...)
	if !has {
		wanted = unset
	}
	current, _, _ := unstructured.NestedInt64(tree, steps(s.StatusReplicasPath)...)
	selector := ""
	if s.LabelSelectorPath != nil {
		selector, _, _ = unstructured.NestedString(tree, steps(*s.LabelSelectorPath)...)
	}
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: "autoscaling/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name:              obj.GetName(),
			Namespace:         obj.GetNamespace(),
			UID:               obj.GetUID(),
			ResourceVersion:   obj.GetResourceVersion(),
			CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: int32(wanted)},                        //nolint:gosec // validation bounds it
		Status: autoscalingv1.ScaleStatus{Replicas: int32(current), Selector: selector}, //nolint:gosec // as above
	}
}
