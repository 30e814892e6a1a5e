package client

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
)

// Limit is a Transport whose requests wait before each is sent, until wait returns; they
// fail with its error.
func Limit(t Transport, wait func(context.Context) error) Transport { return &limited{t, wait} }

type limited struct {
	to   Transport
	wait func(context.Context) error
}

// Get implements Transport.
func (l *limited) Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	return l.to.Get(ctx, t, opts)
}

// List implements Transport.
func (l *limited) List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	return l.to.List(ctx, t, opts)
}

// Watch implements Transport.
func (l *limited) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	return l.to.Watch(ctx, t, opts)
}

// Create implements Transport.
func (l *limited) Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	return l.to.Create(ctx, t, obj, opts)
}

// Update implements Transport.
func (l *limited) Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	return l.to.Update(ctx, t, obj, opts)
}

// Patch implements Transport.
func (l *limited) Patch(ctx context.Context, t target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	return l.to.Patch(ctx, t, pt, data, opts)
}

// Delete implements Transport.
func (l *limited) Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	return l.to.Delete(ctx, t, opts)
}

// DeleteCollection implements Transport.
func (l *limited) DeleteCollection(ctx context.Context, t target.Target, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	return l.to.DeleteCollection(ctx, t, opts, list)
}
