package seeded

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// door leads to whichever API server there is for somebody. While there is none every
// request fails.
type door struct {
	w  *world
	id identity.Identity
}

func through[T any](d door, do func(t client.Transport) (T, error)) (T, error) {
	s := d.w.serverOf(d.id.Name)
	if s == nil {
		var none T
		return none, apierrors.NewServiceUnavailable("there is no API server")
	}
	return do(s.Local(d.id))
}

func (d door) Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error) {
	return through(d, func(in client.Transport) (runtime.Object, error) { return in.Get(ctx, t, opts) })
}

func (d door) List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	return through(d, func(in client.Transport) (runtime.Object, error) { return in.List(ctx, t, opts) })
}

func (d door) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	return through(d, func(in client.Transport) (watch.Interface, error) { return in.Watch(ctx, t, opts) })
}

func (d door) Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	return through(d, func(in client.Transport) (runtime.Object, error) { return in.Create(ctx, t, obj, opts) })
}

func (d door) Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	return through(d, func(in client.Transport) (runtime.Object, error) { return in.Update(ctx, t, obj, opts) })
}

func (d door) Patch(ctx context.Context, t target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	return through(d, func(in client.Transport) (runtime.Object, error) { return in.Patch(ctx, t, pt, data, opts) })
}

func (d door) Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error {
	_, err := through(d, func(in client.Transport) (struct{}, error) { return struct{}{}, in.Delete(ctx, t, opts) })
	return err
}

func (d door) DeleteCollection(ctx context.Context, t target.Target, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	_, err := through(d, func(in client.Transport) (struct{}, error) {
		return struct{}{}, in.DeleteCollection(ctx, t, opts, list)
	})
	return err
}

// Raw implements what client.Raw asks for.
func (d door) Raw(ctx context.Context, path string) ([]byte, error) {
	return through(d, func(in client.Transport) ([]byte, error) { return client.Raw(ctx, in, path) })
}
