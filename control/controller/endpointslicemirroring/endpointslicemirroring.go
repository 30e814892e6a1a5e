// Package endpointslicemirroring keeps a promise: what somebody writes into the
// Endpoints of a Service without a selector is also told by EndpointSlices, which
// is all that proxies read. It follows upstream's
// pkg/controller/endpointslicemirroring.
package endpointslicemirroring

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	// component is the user, source the source of events, as upstream's.
	component = "endpointslicemirroring-controller"
	source    = "endpoint-slice-mirroring-controller"
	// managedBy marks the slices of this controller, as upstream's.
	managedBy  = "endpointslicemirroring-controller.k8s.io"
	byMirrored = "mirrored" // index of slices: "namespace/name" of their service
	// unseen is how long to wait for one's own writes to show up when no event
	// brings the key back.
	unseen = 30 * time.Second
	// leaderAnnotation is on Endpoints that are no endpoints: old leader election.
	leaderAnnotation = "control-plane.alpha.kubernetes.io/leader"
)

// Controller mirrors the Endpoints of every service without a selector.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	services  *informer.Informer[*corev1.Service]
	endpoints *informer.Informer[*corev1.Endpoints]
	slices    *informer.Informer[*discoveryv1.EndpointSlice]
	own       *controller.Own[*discoveryv1.EndpointSlice]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		services:  controller.Mirror(cfg.Mirrors, client.Services),
		endpoints: controller.Mirror(cfg.Mirrors, client.Endpoints),
		slices:    controller.Mirror(cfg.Mirrors, client.EndpointSlices),
	}
	c.events = client.NewRecorder(c.transport, source, "")
	c.own = controller.NewOwn(c.slices)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.slices.AddIndex(byMirrored, func(s *discoveryv1.EndpointSlice) []string {
		if key, ok := serviceOf(s); ok {
			return []string{key.String()}
		}
		return nil
	})
	c.services.Subscribe(func(e informer.Event[*corev1.Service]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.endpoints.Subscribe(func(e informer.Event[*corev1.Endpoints]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.slices.Subscribe(func(e informer.Event[*discoveryv1.EndpointSlice]) {
		for _, s := range []*discoveryv1.EndpointSlice{e.Old, e.New} {
			if key, ok := serviceOf(s); ok {
				c.loop.Enqueue(key)
			}
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "endpointslicemirroring" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Services.GroupVersionResource, client.Endpoints.GroupVersionResource, client.EndpointSlices.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	slices := client.EndpointSlices.GroupVersionResource
	return []reconcile.Write{
		{Resource: slices, Part: reconcile.Create}, {Resource: slices, Part: reconcile.Delete},
		{Resource: slices, Part: "endpoints[" + managedBy + "]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// serviceOf names the service of a slice of ours.
func serviceOf(s *discoveryv1.EndpointSlice) (reconcile.Key, bool) {
	if s == nil || s.Labels[discoveryv1.LabelManagedBy] != managedBy || s.Labels[discoveryv1.LabelServiceName] == "" {
		return reconcile.Key{}, false
	}
	return reconcile.Key{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}, true
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	if !c.own.Seen(key) {
		return unseen, nil
	}
	begin, counts := time.Now(), measure.From(ctx)
	have := c.slices.ByIndex(byMirrored, key.String())
	e := c.mirrored(key)
	if e == nil {
		counts.MirrorsGone(key.String())
		return 0, c.do(ctx, key, plan{remove: have})
	}
	p := decide(e, have)
	defer func() {
		looked := p.compare(have)
		looked.Began = begin
		counts.Mirrored(key.String(), looked)
	}()
	if p.invalid > 0 {
		c.events.Eventf(e, corev1.EventTypeWarning, "InvalidIPAddress",
			"Skipped %d invalid IP addresses when mirroring to EndpointSlices", p.invalid)
	}
	if p.surplus > 0 {
		c.events.Eventf(e, corev1.EventTypeWarning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", maxEndpoints, p.surplus+p.invalid)
	}
	if e.DeletionTimestamp != nil {
		p.create = nil
	}
	return 0, c.do(ctx, key, p)
}

// mirrored is the Endpoints to mirror, nil when there is none or its slices are
// somebody else's affair.
func (c *Controller) mirrored(key reconcile.Key) *corev1.Endpoints {
	e, ok := c.endpoints.Get(key.Namespace, key.Name)
	if !ok || e.Labels[discoveryv1.LabelSkipMirror] == "true" {
		return nil
	}
	if _, election := e.Annotations[leaderAnnotation]; election {
		return nil
	}
	svc, ok := c.services.Get(key.Namespace, key.Name)
	if !ok || svc.Spec.Selector != nil {
		return nil
	}
	return e
}

// do carries out p: new slices first, so that no endpoint is missing meanwhile.
func (c *Controller) do(ctx context.Context, key reconcile.Key, p plan) error {
	var errs []error
	for _, s := range p.create {
		made, err := client.EndpointSlices.Create(ctx, c.transport, s)
		if err != nil {
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil
			}
			errs = append(errs, fmt.Errorf("create endpoint slice for endpoints %q: %w", key, err))
			continue
		}
		measure.From(ctx).MirrorChanged("create")
		c.own.Created(key, made)
	}
	for _, s := range p.update {
		made, err := client.EndpointSlices.Update(ctx, c.transport, s)
		if err != nil {
			errs = append(errs, fmt.Errorf("update endpoint slice %q for endpoints %q: %w", s.Name, key, err))
			continue
		}
		measure.From(ctx).MirrorChanged("update")
		c.own.Wrote(key, made)
	}
	for _, s := range p.remove {
		err := client.EndpointSlices.Delete(ctx, c.transport, s.Namespace, s.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			errs = append(errs, fmt.Errorf("delete endpoint slice %q for endpoints %q: %w", s.Name, key, err))
		default:
			measure.From(ctx).MirrorChanged("delete")
			c.own.Deleted(key, s)
		}
	}
	return errors.Join(errs...)
}
