// Package loadbalancer keeps a promise: a service of type LoadBalancer that asks
// for no other implementation is reachable at the addresses of the nodes. The
// nodes' service proxies answer there; this package only says so, in the service's
// status. It follows upstream's service controller in classes, finalizer, events
// and in which nodes take part.
//
// Unlike a balancer outside, nodes have addresses and ports that are in use: of two
// services that want the same port, the older has it, and the ports of the API
// server and of the nodes themselves are nobody's.
package loadbalancer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "service-controller"
	finalizer = "service.kubernetes.io/load-balancer-cleanup"
	byService = "balancer's service" // index of slices, "namespace/name"
	byKind    = "balancer's kind"    // index of services: those that are looked after
)

// Controller keeps the addresses of services. Its keys are services.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	services  *informer.Informer[*corev1.Service]
	nodes     *informer.Informer[*corev1.Node]
	slices    *informer.Informer[*discoveryv1.EndpointSlice]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		services:  controller.Mirror(cfg.Mirrors, client.Services),
		nodes:     controller.Mirror(cfg.Mirrors, client.Nodes),
		slices:    controller.Mirror(cfg.Mirrors, client.EndpointSlices),
	}
	c.events = client.NewRecorder(c.transport, component, "")
	// One worker: who has a port is decided by looking at all services.
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 1, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.services.AddIndex(byKind, func(s *corev1.Service) []string {
		if concerned(s) {
			return []string{""}
		}
		return nil
	})
	c.slices.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string {
		return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
	})
	c.subscribe()
	return c, nil
}

func (c *Controller) subscribe() {
	c.services.Subscribe(func(e informer.Event[*corev1.Service]) {
		if e.New != nil && concerned(e.New) {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
		if e.Old != nil && concerned(e.Old) && (e.New == nil || !wants(e.New) || !equality.Semantic.DeepEqual(e.Old.Spec.Ports, e.New.Spec.Ports)) {
			c.all() // a port may have become free
		}
	})
	c.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		if e.Old == nil || e.New == nil || !slices.Equal(addresses(e.Old), addresses(e.New)) || eligible(e.Old) != eligible(e.New) {
			c.all()
		}
	})
	c.slices.Subscribe(func(e informer.Event[*discoveryv1.EndpointSlice]) {
		s, ok := c.services.Get(e.Object().Namespace, e.Object().Labels[discoveryv1.LabelServiceName])
		if ok && wants(s) && local(s) {
			c.loop.Enqueue(controller.KeyOf(s))
		}
	})
}

// all looks at every service that has to do with nodes.
func (c *Controller) all() {
	for _, s := range c.services.ByIndex(byKind, "") {
		c.loop.Enqueue(controller.KeyOf(s))
	}
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "loadbalancer" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Services.GroupVersionResource, client.Nodes.GroupVersionResource, client.EndpointSlices.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	services := client.Services.GroupVersionResource
	return []reconcile.Write{
		{Resource: services, Part: "status.loadBalancer"}, {Resource: services, Part: "metadata.finalizers[" + finalizer + "]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	s, ok := c.services.Get(key.Namespace, key.Name)
	if !ok || !concerned(s) {
		return 0, nil
	}
	if !wants(s) {
		return 0, c.leave(ctx, s)
	}
	if !slices.Contains(s.Finalizers, finalizer) {
		c.events.Event(s, corev1.EventTypeNormal, "EnsuringLoadBalancer", "Ensuring load balancer")
		next := s.DeepCopy()
		next.Finalizers = append(next.Finalizers, finalizer)
		made, err := c.write(ctx, next)
		if err != nil {
			return 0, err
		}
		s = made
	}
	if taken := c.rival(s); taken != "" {
		c.events.Eventf(s, corev1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: failed to ensure load balancer: %s", taken)
		return 0, c.set(ctx, s, nil)
	}
	want := c.ingress(s)
	if len(want) > 0 && len(s.Status.LoadBalancer.Ingress) == 0 {
		c.events.Event(s, corev1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer")
	}
	if len(want) == 0 && !local(s) {
		c.events.Event(s, corev1.EventTypeWarning, "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
	}
	return 0, c.set(ctx, s, want)
}

// set writes the addresses if they are others.
func (c *Controller) set(ctx context.Context, s *corev1.Service, want []corev1.LoadBalancerIngress) error {
	if equality.Semantic.DeepEqual(s.Status.LoadBalancer.Ingress, want) {
		return nil
	}
	next := s.DeepCopy()
	next.Status.LoadBalancer.Ingress = want
	_, err := c.write(ctx, next)
	return err
}

// leave takes back what a service has that wants it no more.
func (c *Controller) leave(ctx context.Context, s *corev1.Service) error {
	if !slices.Contains(s.Finalizers, finalizer) {
		return nil
	}
	c.events.Event(s, corev1.EventTypeNormal, "DeletingLoadBalancer", "Deleting load balancer")
	next := s.DeepCopy()
	next.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == finalizer })
	if _, err := c.write(ctx, next); err != nil {
		return err
	}
	c.events.Event(s, corev1.EventTypeNormal, "DeletedLoadBalancer", "Deleted load balancer")
	return nil
}

// write stores status and finalizers: the status of a service carries both.
func (c *Controller) write(ctx context.Context, next *corev1.Service) (*corev1.Service, error) {
	made, err := client.Services.UpdateStatus(ctx, c.transport, next)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("update load balancer of service %q: %w", controller.KeyOf(next), err)
	}
	if err != nil {
		return next, nil // gone
	}
	return made, nil
}

// rival says which port of a service is not to be had.
func (c *Controller) rival(s *corev1.Service) string {
	reserved := map[int32]string{}
	for _, n := range c.nodes.List() {
		if p := n.Status.DaemonEndpoints.KubeletEndpoint.Port; p != 0 {
			reserved[p] = "the nodes"
		}
	}
	for _, slice := range c.slices.ByIndex(byService, "default/kubernetes") {
		for _, p := range slice.Ports {
			if p.Port != nil {
				reserved[*p.Port] = "the API server"
			}
		}
	}
	return conflict(s, c.services.ByIndex(byKind, ""), reserved)
}

// ingress is where a service is reached: at the nodes that take part, in the order
// of their names.
func (c *Controller) ingress(s *corev1.Service) []corev1.LoadBalancerIngress {
	serving := map[string]bool{}
	if local(s) {
		for _, slice := range c.slices.ByIndex(byService, s.Namespace+"/"+s.Name) {
			for i := range slice.Endpoints {
				e := &slice.Endpoints[i]
				if e.NodeName != nil && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
					serving[*e.NodeName] = true
				}
			}
		}
	}
	var all []corev1.LoadBalancerIngress
	for _, n := range c.nodes.List() {
		if !eligible(n) || local(s) && !serving[n.Name] {
			continue
		}
		for _, ip := range addresses(n) {
			if slices.Contains(controller.Families(s), familyOf(ip)) {
				all = append(all, corev1.LoadBalancerIngress{IP: ip, IPMode: new(corev1.LoadBalancerIPModeVIP)})
			}
		}
	}
	return all
}

func familyOf(ip string) corev1.IPFamily {
	if strings.Contains(ip, ":") {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
