package admit

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// immortal namespaces cannot be deleted.
var immortal = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic}

// namespaces: nothing is created in a namespace that is not there or is going
// away, and the built-in ones stay.
type namespaces struct {
	Neither
	objects Reader
}

func (r namespaces) Admit(ctx context.Context, a *resource.Attributes) error {
	if is(a, "", "namespaces") {
		if a.Operation == resource.OpDelete && slices.Contains(immortal, a.Target.Name) && a.Target.Subresource == "" {
			return apierrors.NewForbidden(a.Target.Resource.GroupResource(), a.Target.Name, fmt.Errorf("this namespace may not be deleted"))
		}
		return nil
	}
	if a.Target.Namespace == "" || a.Operation == resource.OpDelete || is(a, "authorization.k8s.io", "localsubjectaccessreviews") {
		return nil
	}
	obj, err := cached(ctx, r.objects, core("namespaces", "", a.Target.Namespace))
	if err != nil {
		return err
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok || a.Operation != resource.OpCreate || ns.Status.Phase != corev1.NamespaceTerminating && ns.DeletionTimestamp == nil {
		return nil
	}
	return terminating(a, ns.Name)
}

// terminating is a 403 whose cause clients look for.
func terminating(a *resource.Attributes, namespace string) error {
	err := apierrors.NewForbidden(a.Target.Resource.GroupResource(), a.Target.Name,
		fmt.Errorf("unable to create new content in namespace %s because it is being terminated", namespace))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: fmt.Sprintf("namespace %s is being terminated", namespace),
		Field:   "metadata.namespace",
	})
	return err
}
