package client

import (
	"context"
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/target"
)

// Request is one request that was made, and how it went.
type Request struct {
	// Method is HTTP's.
	Method string
	// Code is that of the answer, 0 when there was none.
	Code int
	// Took is how long the answer took; of a watch, its beginning.
	Took time.Duration
}

// Observe is a Transport that tells seen of every request of t.
func Observe(t Transport, seen func(Request)) Transport { return &observed{t, seen} }

type observed struct {
	to   Transport
	seen func(Request)
}

// tell says how a request went, given what an answer without fault would be.
func (o *observed) tell(method string, good int, begin time.Time, err error) {
	code := good
	if err != nil {
		var status apierrors.APIStatus
		if code = 0; errors.As(err, &status) {
			code = int(status.Status().Code)
		}
	}
	o.seen(Request{method, code, time.Since(begin)})
}

// Get implements Transport.
func (o *observed) Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error) {
	begin := time.Now()
	obj, err := o.to.Get(ctx, t, opts)
	o.tell(http.MethodGet, http.StatusOK, begin, err)
	return obj, err
}

// List implements Transport.
func (o *observed) List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	begin := time.Now()
	obj, err := o.to.List(ctx, t, opts)
	o.tell(http.MethodGet, http.StatusOK, begin, err)
	return obj, err
}

// Watch implements Transport.
func (o *observed) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	begin := time.Now()
	events, err := o.to.Watch(ctx, t, opts)
	o.tell(http.MethodGet, http.StatusOK, begin, err)
	return events, err
}

// Create implements Transport.
func (o *observed) Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	begin := time.Now()
	made, err := o.to.Create(ctx, t, obj, opts)
	o.tell(http.MethodPost, http.StatusCreated, begin, err)
	return made, err
}

// Update implements Transport.
func (o *observed) Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	begin := time.Now()
	made, err := o.to.Update(ctx, t, obj, opts)
	o.tell(http.MethodPut, http.StatusOK, begin, err)
	return made, err
}

// Patch implements Transport.
func (o *observed) Patch(ctx context.Context, t target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	begin := time.Now()
	made, err := o.to.Patch(ctx, t, pt, data, opts)
	o.tell(http.MethodPatch, http.StatusOK, begin, err)
	return made, err
}

// Delete implements Transport.
func (o *observed) Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error {
	begin := time.Now()
	err := o.to.Delete(ctx, t, opts)
	o.tell(http.MethodDelete, http.StatusOK, begin, err)
	return err
}

// DeleteCollection implements Transport.
func (o *observed) DeleteCollection(ctx context.Context, t target.Target, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	begin := time.Now()
	err := o.to.DeleteCollection(ctx, t, opts, list)
	o.tell(http.MethodDelete, http.StatusOK, begin, err)
	return err
}
