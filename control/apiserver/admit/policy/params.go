package policy

import (
	"context"
	"errors"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// paramKind is the row of the kind of a policy's params; nil for a policy without.
// A kind that nobody serves makes the policy unusable.
func (p *Policies) paramKind(k *admissionregistrationv1.ParamKind) (*kinds.Kind, error) {
	if k == nil {
		return nil, nil
	}
	gv, err := schema.ParseGroupVersion(k.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("failed to parse paramKind APIVersion: %w", err)
	}
	kind, ok := p.cfg.Table.KindOf(gv.WithKind(k.Kind))
	if !ok {
		return nil, fmt.Errorf("failed to find resource referenced by paramKind: '%v'", gv.WithKind(k.Kind))
	}
	return kind, nil
}

// params are the objects by which a binding parameterises its policy: one nil
// where it has none. None at all means that the binding does not apply.
func (p *Policies) params(ctx context.Context, kind *kinds.Kind, ref *admissionregistrationv1.ParamRef, namespace string) ([]runtime.Object, error) {
	if kind == nil || ref == nil {
		return []runtime.Object{nil}, nil
	}
	switch {
	case !kind.Namespaced && ref.Namespace != "":
		return nil, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	case !kind.Namespaced:
		namespace = ""
	case ref.Namespace != "":
		namespace = ref.Namespace
	case namespace == "":
		return nil, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
	}
	found, err := p.find(ctx, target.Of(kind.GVR(), namespace), ref)
	if err != nil {
		return nil, err
	}
	for _, obj := range found {
		obj.GetObjectKind().SetGroupVersionKind(kind.GVK) // items of a list have none
	}
	if len(found) == 0 && ref.ParameterNotFoundAction != nil && *ref.ParameterNotFoundAction == admissionregistrationv1.DenyAction {
		return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
	}
	return found, nil
}

// find reads the params that ref names or selects: no error when there are none.
// The result may be changed at its top level.
func (p *Policies) find(ctx context.Context, at target.Target, ref *admissionregistrationv1.ParamRef) ([]runtime.Object, error) {
	if ref.Name != "" {
		obj, err := p.cfg.Objects.Get(ctx, at.Object(ref.Name), metav1.GetOptions{ResourceVersion: "0"})
		if apierrors.IsNotFound(err) {
			obj, err = p.cfg.Objects.Get(ctx, at.Object(ref.Name), metav1.GetOptions{})
		}
		switch {
		case apierrors.IsNotFound(err):
			return nil, nil
		case err != nil:
			return nil, err
		}
		return []runtime.Object{obj.DeepCopyObject()}, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(ref.Selector)
	if err != nil {
		return nil, err
	}
	list, err := p.cfg.Objects.List(ctx, at, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, err
	}
	var out []runtime.Object
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		out = append(out, obj.DeepCopyObject())
		return nil
	})
	return out, err
}
