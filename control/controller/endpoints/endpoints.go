// Package endpoints keeps an old promise: the Endpoints object of a Service
// names the pods behind it. EndpointSlices have replaced it for everybody who
// can choose; it follows upstream's pkg/controller/endpoint.
package endpoints

import (
	"context"
	"fmt"
	"maps"
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

// component is the user, the source of events and the mark on the objects, as
// upstream's.
const component = "endpoint-controller"

// Controller keeps the endpoints of every service.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	services  *informer.Informer[*corev1.Service]
	pods      *informer.Informer[*corev1.Pod]
	endpoints *informer.Informer[*corev1.Endpoints]
	backends  *controller.Backends
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		services:  controller.Mirror(cfg.Mirrors, client.Services),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		endpoints: controller.Mirror(cfg.Mirrors, client.Endpoints),
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.backends = controller.NewBackends(c.services, c.pods)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.services.Subscribe(func(e informer.Event[*corev1.Service]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.pods.Subscribe(c.backends.Subscriber(c.loop.Enqueue))
	c.endpoints.Subscribe(func(e informer.Event[*corev1.Endpoints]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "endpoints" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Services.GroupVersionResource, client.Pods.GroupVersionResource, client.Endpoints.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.Endpoints.GroupVersionResource}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	svc, ok := c.services.Get(key.Namespace, key.Name)
	have, exists := c.endpoints.Get(key.Namespace, key.Name)
	if !ok {
		if !exists || have.Labels[managedByLabel] != component {
			return 0, nil // made by hand, or gone
		}
		err := client.Endpoints.Delete(ctx, c.transport, key.Namespace, key.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("delete endpoints %q: %w", key, err)
		}
		return 0, nil
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName || len(svc.Spec.Selector) == 0 {
		return 0, nil // somebody else names the endpoints
	}
	next := wanted(svc, c.backends.Of(svc))
	if exists {
		next.ObjectMeta = *have.ObjectMeta.DeepCopy()
		next.Labels, next.Annotations = labelsOf(svc), annotationsOf(have.Annotations, next.Annotations)
		if same(have, next) {
			return 0, nil
		}
	}
	return 0, c.write(ctx, svc, next, exists)
}

func (c *Controller) write(ctx context.Context, svc *corev1.Service, next *corev1.Endpoints, exists bool) error {
	verb, reason := "create", "FailedToCreateEndpoint"
	var err error
	if exists {
		verb, reason = "update", "FailedToUpdateEndpoint"
		_, err = client.Endpoints.Update(ctx, c.transport, next)
	} else {
		_, err = client.Endpoints.Create(ctx, c.transport, next)
	}
	switch {
	case err == nil, apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), apierrors.IsNotFound(err):
		return nil
	case !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err):
		c.events.Eventf(next, corev1.EventTypeWarning, reason, "Failed to %s endpoint for service %s/%s: %v", verb, svc.Namespace, svc.Name, err)
	}
	return fmt.Errorf("%s endpoints %q: %w", verb, svc.Name, err)
}

// annotationsOf keeps what others have written.
func annotationsOf(have, want map[string]string) map[string]string {
	next := maps.Clone(have)
	if next == nil {
		next = map[string]string{}
	}
	delete(next, corev1.EndpointsOverCapacity)
	maps.Copy(next, want)
	return next
}
