// Package client is the only way to speak to an API server. A Transport carries
// requests: in-process (the API server's own, handing out shared, read-only
// objects without encoding anything) or over HTTPS. A Resource gives one kind's
// collection its Go type. Whoever runs against one transport runs against the
// other; the exam of both is in clienttest.
package client

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
)

// Object is what every stored kind is.
type Object interface {
	metav1.Object
	runtime.Object
}

// Patch is a change in one of the API's patch formats.
type Patch struct {
	Type types.PatchType
	Data []byte
}

// Transport carries one identity's requests to an API server. Errors are
// *apierrors.StatusError values: match them with apierrors.IsNotFound and its
// family. Objects that come back are shared and read-only: DeepCopy before
// changing one. Objects handed in are not kept and not changed.
//
// The API server's in-process transport satisfies it without knowing it.
type Transport interface {
	Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error)
	// List returns the kind's list type.
	List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error)
	// Watch delivers events until Stop, or until the server ends it; it may end
	// with an ERROR event that carries a *metav1.Status.
	Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error)
	// Create also posts to subresources (binding, eviction, token).
	Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error)
	Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error)
	Patch(ctx context.Context, t target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error)
	Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error
	DeleteCollection(ctx context.Context, t target.Target, opts metav1.DeleteOptions, list metav1.ListOptions) error
}
