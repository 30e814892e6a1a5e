// Package endpoints keeps an old promise: the Endpoints object of a Service
// names the pods behind it. EndpointSlices have replaced it for everybody who
// can choose; it follows upstream's pkg/controller/endpoint.
package endpoints

import (
	"context"
	"fmt"
	"maps"
	"sync"
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
	triggers  controller.Triggers

	mu sync.Mutex
	// gone are services that have been deleted: their endpoints go with them, whoever
	// made those.
	gone map[reconcile.Key]bool
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
		gone:      map[reconcile.Key]bool{},
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.backends = controller.NewBackends(c.services, c.pods)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.services.Subscribe(c.serviceChanged)
	c.pods.Subscribe(c.backends.Subscriber(c.loop.Enqueue))
	c.endpoints.Subscribe(func(e informer.Event[*corev1.Endpoints]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	return c, nil
}

func (c *Controller) serviceChanged(e informer.Event[*corev1.Service]) {
	key := controller.KeyOf(e.Object())
	c.mu.Lock()
	if e.New == nil {
		c.gone[key] = true
	} else {
		delete(c.gone, key)
	}
	c.mu.Unlock()
	c.loop.Enqueue(key)
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
		c.triggers.Forget(key)
		return 0, c.clear(ctx, key, have, exists)
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName || len(svc.Spec.Selector) == 0 {
		return 0, nil // somebody else names the endpoints
	}
	pods := c.backends.Of(svc)
	next, trigger := wanted(svc, pods), c.triggers.Next(key, svc, pods)
	if exists {
		next.ObjectMeta = *have.ObjectMeta.DeepCopy()
		next.Labels, next.Annotations = labelsOf(svc), annotationsOf(have.Annotations, next.Annotations)
		if same(have, next) {
			return 0, nil
		}
	}
	stamp(next, trigger)
	err := c.write(ctx, svc, next, exists)
	if err != nil {
		c.triggers.Lost(key)
	}
	return 0, err
}

// clear removes the endpoints of a service that there is not: those that this controller
// made, and others if it has seen the service go. Whoever makes endpoints before their
// service keeps them.
func (c *Controller) clear(ctx context.Context, key reconcile.Key, have *corev1.Endpoints, exists bool) error {
	c.mu.Lock()
	gone := c.gone[key]
	c.mu.Unlock()
	if exists && (gone || have.Labels[managedByLabel] == component) {
		err := client.Endpoints.Delete(ctx, c.transport, key.Namespace, key.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete endpoints %q: %w", key, err)
		}
	}
	c.mu.Lock()
	delete(c.gone, key)
	c.mu.Unlock()
	return nil
}

func (c *Controller) write(ctx context.Context, svc *corev1.Service, next *corev1.Endpoints, exists bool) error {
	verb, reason, what := "create", "FailedToCreateEndpoint", "endpoint for service"
	var err error
	if exists {
		verb, reason, what = "update", "FailedToUpdateEndpoint", "endpoint"
		_, err = client.Endpoints.Update(ctx, c.transport, next)
	} else {
		_, err = client.Endpoints.Create(ctx, c.transport, next)
	}
	switch {
	case err == nil, apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), apierrors.IsNotFound(err):
		return nil
	case !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err):
		c.events.Eventf(next, corev1.EventTypeWarning, reason, "Failed to %s %s %s/%s: %v", verb, what, svc.Namespace, svc.Name, err)
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
