// Package endpointslice keeps a promise: the EndpointSlices of a Service name
// the pods behind it, in slices of bounded size that change as little as
// possible. It follows upstream's k8s.io/endpointslice in labels, conditions and
// hints.
package endpointslice

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	component = "endpointslice-controller"  // the user
	source    = "endpoint-slice-controller" // how upstream signs its events
	byService = "service"                   // index of slices: "namespace/name" of their service
	bySpread  = "spread"                    // index of services that are spread over zones: ""
	// unseen is how long to wait for one's own writes to show up when no event
	// brings the key back.
	unseen = 30 * time.Second
)

// Controller keeps the slices of every service.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	services  *informer.Informer[*corev1.Service]
	pods      *informer.Informer[*corev1.Pod]
	nodes     *informer.Informer[*corev1.Node]
	slices    *informer.Informer[*discoveryv1.EndpointSlice]
	backends  *controller.Backends
	own       *controller.Own[*discoveryv1.EndpointSlice]
	triggers  controller.Triggers

	mu     sync.Mutex
	told   map[reconcile.Key]map[discoveryv1.AddressType]verdict
	shares map[string]float64
	stale  bool // shares must be computed anew
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
		nodes:     controller.Mirror(cfg.Mirrors, client.Nodes),
		slices:    controller.Mirror(cfg.Mirrors, client.EndpointSlices),
		told:      map[reconcile.Key]map[discoveryv1.AddressType]verdict{},
		stale:     true,
	}
	c.events = client.NewRecorder(c.transport, source, "")
	c.own = controller.NewOwn(c.slices)
	c.backends = controller.NewBackends(c.services, c.pods)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	controller.IndexNodes(c.pods)
	c.slices.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string {
		if key, ok := serviceOf(s); ok {
			return []string{key.String()}
		}
		return nil
	})
	c.services.AddIndex(bySpread, func(s *corev1.Service) []string {
		if spread(s) {
			return []string{""}
		}
		return nil
	})
	c.services.Subscribe(func(e informer.Event[*corev1.Service]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.pods.Subscribe(c.backends.Subscriber(c.loop.Enqueue))
	c.slices.Subscribe(func(e informer.Event[*discoveryv1.EndpointSlice]) {
		for _, s := range []*discoveryv1.EndpointSlice{e.Old, e.New} {
			if key, ok := serviceOf(s); ok {
				c.loop.Enqueue(key)
			}
		}
	})
	c.nodes.Subscribe(c.enqueueMoved)
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "endpointslice" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Services.GroupVersionResource, client.Pods.GroupVersionResource,
		client.Nodes.GroupVersionResource, client.EndpointSlices.GroupVersionResource,
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

// enqueueMoved looks at the services of a node's pods when it has come or gone or its
// zone has changed, and at all that are spread over zones when what those have has.
func (c *Controller) enqueueMoved(e informer.Event[*corev1.Node]) {
	if !alike(e.Old, e.New) {
		c.mu.Lock()
		c.stale = true
		c.mu.Unlock()
		for _, svc := range c.services.ByIndex(bySpread, "") {
			c.loop.Enqueue(controller.KeyOf(svc))
		}
	}
	if e.Old != nil && e.New != nil && e.Old.Labels[corev1.LabelTopologyZone] == e.New.Labels[corev1.LabelTopologyZone] {
		return
	}
	for _, pod := range controller.OnNode(c.pods, e.Object().Name) {
		for _, key := range c.backends.Before(pod) {
			c.loop.Enqueue(key)
		}
	}
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	svc, ok := c.services.Get(key.Namespace, key.Name)
	if !ok {
		measure.From(ctx).SlicesGone(key.String())
		c.own.Forget(key)
		c.triggers.Forget(key)
		c.mu.Lock()
		delete(c.told, key)
		c.mu.Unlock()
		return 0, nil // the collector removes the slices with their owner
	}
	if len(svc.Spec.Selector) == 0 {
		return 0, nil // somebody else names the endpoints
	}
	if !c.own.Seen(key) {
		measure.From(ctx).SlicesSynced("stale")
		return unseen, nil
	}
	have := c.slices.ByIndex(byService, key.String())
	p := plan{remove: have}
	if svc.Spec.Type != corev1.ServiceTypeExternalName {
		pods := c.backends.Of(svc)
		p = decide(svc, pods, have, c.places(svc))
		p.stamp(c.triggers.Next(key, svc, pods))
	}
	err := c.do(ctx, key, p)
	p.measure(ctx, key, svc, err)
	if err != nil {
		c.triggers.Lost(key)
	}
	if err != nil && !apierrors.IsConflict(err) {
		c.failed(svc, err)
	}
	for _, pod := range p.lost { // when its node comes it is looked at again
		c.failed(svc, fmt.Errorf("skipping Pod %s for Service %s: Node %s Not Found", pod.Name, key, pod.Spec.NodeName))
	}
	c.tell(key, svc, p)
	return 0, err
}

func (c *Controller) failed(svc *corev1.Service, err error) {
	c.events.Eventf(svc, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
		"Error updating Endpoint Slices for Service %s/%s: %v", svc.Namespace, svc.Name, err)
}

// tell says what has become of a spread over zones, when that is another thing than
// before. Who has just been started and finds everything as it should be is silent.
func (c *Controller) tell(key reconcile.Key, svc *corev1.Service, p plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		why, asked := p.hints[family]
		before, known := c.told[key][family]
		eventtype, reason, message := corev1.EventTypeWarning, "TopologyAwareHintsDisabled", string(why)
		switch {
		case !asked && known && before == "":
			message = "Topology Aware Hints has been disabled"
		case !asked || known && why == before || !known && why == "" && len(p.create)+len(p.update) == 0:
			continue
		case why == "":
			eventtype, reason, message = corev1.EventTypeNormal, "TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled"
		}
		c.events.Eventf(svc, eventtype, reason, "%s, addressType: %s", message, family)
	}
	if c.told[key] = p.hints; len(p.hints) == 0 {
		delete(c.told, key)
	}
}

// places is where a service's pods are; what zones have is computed only for who asks.
func (c *Controller) places(svc *corev1.Service) places {
	at := places{zone: func(name string) (string, bool) {
		n, ok := c.nodes.Get("", name)
		if !ok {
			return "", false
		}
		return n.Labels[corev1.LabelTopologyZone], true
	}}
	if !spread(svc) {
		return at
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stale {
		c.stale = false
		c.shares = sharesOf(c.nodes.List())
	}
	at.shares = c.shares
	return at
}

// do carries out p: new slices first, so that no endpoint is missing meanwhile.
func (c *Controller) do(ctx context.Context, key reconcile.Key, p plan) error {
	var errs []error
	for _, s := range p.create {
		made, err := client.EndpointSlices.Create(ctx, c.transport, s)
		if err != nil {
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err) {
				return nil
			}
			errs = append(errs, fmt.Errorf("create endpoint slice of service %q: %w", key, err))
			continue
		}
		measure.From(ctx).SliceChanged("create")
		c.own.Created(key, made)
	}
	for _, s := range p.update {
		made, err := client.EndpointSlices.Update(ctx, c.transport, s)
		if err != nil {
			errs = append(errs, fmt.Errorf("update endpoint slice %q: %w", s.Name, err))
			continue
		}
		measure.From(ctx).SliceChanged("update")
		c.own.Created(key, made)
	}
	for _, s := range p.remove {
		err := client.EndpointSlices.Delete(ctx, c.transport, s.Namespace, s.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			errs = append(errs, fmt.Errorf("delete endpoint slice %q: %w", s.Name, err))
		default:
			measure.From(ctx).SliceChanged("delete")
			c.own.Deleted(key, s)
		}
	}
	return errors.Join(errs...)
}

// measure counts what a look at a service came to.
func (p *plan) measure(ctx context.Context, key reconcile.Key, svc *corev1.Service, err error) {
	m, result := measure.From(ctx), "success"
	if err != nil || len(p.lost) > 0 {
		result = "error"
	}
	m.SlicesSynced(result)
	var looks []measure.Sliced
	for _, look := range p.looks {
		looks = append(looks, *look)
	}
	m.Sliced(key.String(), spread(svc), distribution(svc), looks)
}
