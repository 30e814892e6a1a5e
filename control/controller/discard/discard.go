// Package discard keeps a promise: a pod that asks to be removed when it has ended,
// as sampan run -d --rm has it ask, is removed then.
package discard

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

// Annotation with the value "true" is how a pod asks.
const Annotation = "sampan.dev/remove-when-ended"

// component is the user.
const component = "sampan-discard"

// Controller removes pods that have ended.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	pods      *informer.Informer[*corev1.Pod]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{transport: cfg.Transport(component), pods: controller.Mirror(cfg.Mirrors, client.Pods)}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.New != nil && due(e.New) {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "discard" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.Pods.GroupVersionResource, Part: reconcile.Delete}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	pod, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok || !due(pod) {
		return 0, nil
	}
	err := client.Pods.Delete(ctx, c.transport, key.Namespace, key.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return 0, fmt.Errorf("delete pod %q: %w", key, err)
	}
	return 0, nil
}

// due says whether a pod has ended and wants to go.
func due(pod *corev1.Pod) bool {
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	return ended && pod.Annotations[Annotation] == "true" && pod.DeletionTimestamp == nil
}
