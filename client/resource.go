package client

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
)

// Resource is one kind's collection with its Go type: the typed way to use a
// Transport. The known ones are in kinds.go (Pods, Nodes, …).
type Resource[T Object] struct {
	schema.GroupVersionResource
	Kind       string
	Namespaced bool
}

// Get returns the named object, shared and read-only.
func (r Resource[T]) Get(ctx context.Context, t Transport, namespace, name string) (T, error) {
	obj, err := t.Get(ctx, r.object(namespace, name), metav1.GetOptions{})
	return typed[T](obj, err)
}

// List returns the objects of one namespace ("" for all) and the list's
// resourceVersion, which a Watch may start from.
func (r Resource[T]) List(ctx context.Context, t Transport, namespace string, opts metav1.ListOptions) ([]T, string, error) {
	list, err := t.List(ctx, target.Of(r.GroupVersionResource, namespace), opts)
	if err != nil {
		return nil, "", err
	}
	return items[T](list)
}

// Watch delivers changes after opts.ResourceVersion.
func (r Resource[T]) Watch(ctx context.Context, t Transport, namespace string, opts metav1.ListOptions) (watch.Interface, error) {
	return t.Watch(ctx, target.Of(r.GroupVersionResource, namespace), opts)
}

// Create stores a new object and returns it as stored.
func (r Resource[T]) Create(ctx context.Context, t Transport, obj T) (T, error) {
	made, err := t.Create(ctx, target.Of(r.GroupVersionResource, obj.GetNamespace()), obj, metav1.CreateOptions{})
	return typed[T](made, err)
}

// Update replaces an object at the resourceVersion that obj carries.
func (r Resource[T]) Update(ctx context.Context, t Transport, obj T) (T, error) {
	made, err := t.Update(ctx, r.object(obj.GetNamespace(), obj.GetName()), obj, metav1.UpdateOptions{})
	return typed[T](made, err)
}

// UpdateStatus replaces only the status of an object.
func (r Resource[T]) UpdateStatus(ctx context.Context, t Transport, obj T) (T, error) {
	made, err := t.Update(ctx, r.object(obj.GetNamespace(), obj.GetName()).Sub("status"), obj, metav1.UpdateOptions{})
	return typed[T](made, err)
}

// Patch changes an object, or with subresource "status" only its status.
func (r Resource[T]) Patch(ctx context.Context, t Transport, at target.Target, p Patch) (T, error) {
	at.Resource = r.GroupVersionResource
	made, err := t.Patch(ctx, at, p.Type, p.Data, metav1.PatchOptions{})
	return typed[T](made, err)
}

// Delete asks for an object's deletion.
func (r Resource[T]) Delete(ctx context.Context, t Transport, namespace, name string, opts metav1.DeleteOptions) error {
	return t.Delete(ctx, r.object(namespace, name), opts)
}

func (r Resource[T]) object(namespace, name string) target.Target {
	return target.Of(r.GroupVersionResource, namespace).Object(name)
}

func typed[T Object](obj runtime.Object, err error) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	got, ok := obj.(T)
	if !ok {
		return none, fmt.Errorf("server answered with %T, want %T", obj, none)
	}
	return got, nil
}
