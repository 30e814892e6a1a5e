package match

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Selectors are the two label selectors of a webhook or policy, read once.
type Selectors struct {
	namespace, object       labels.Selector
	namespaceErr, objectErr error
}

// NewSelectors reads both selectors.
func NewSelectors(namespace, object *metav1.LabelSelector) Selectors {
	var s Selectors
	s.namespace, s.namespaceErr = metav1.LabelSelectorAsSelector(namespace)
	s.object, s.objectErr = metav1.LabelSelectorAsSelector(object)
	return s
}

// Select says whether both selectors match. An error is told only when the rest
// matches: whom a webhook is not about, its mistakes do not concern. So the caller
// asks first, and returns err once the rules match too.
func (s Selectors) Select(ctx context.Context, r *Request) (ok bool, err error) {
	err = s.namespaceErr
	if err == nil {
		ok, err = r.NamespaceSelected(ctx, s.namespace)
	} else {
		err = apierrors.NewInternalError(err)
	}
	if err == nil && !ok {
		return false, nil
	}
	if s.objectErr != nil {
		if err == nil {
			err = apierrors.NewInternalError(s.objectErr)
		}
		return true, err
	}
	return r.ObjectSelected(s.object), err
}
