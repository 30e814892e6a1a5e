// Package node keeps a promise: what the API says of a node that has gone silent
// is true, and its pods get the chance to run elsewhere. A node's heartbeats are
// its Lease and its status; whether they have stopped is judged by this
// process's own clock. It follows upstream's pkg/controller/nodelifecycle in
// times, conditions and taints, and evicts nobody while no node at all is heard
// of: then it is the control plane that is cut off.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "node-controller"
	// grace is how long a node may be silent before it counts as lost.
	grace = 50 * time.Second
	// startup is how long a new node may take to speak for the first time.
	startup = 60 * time.Second
)

// Controller watches over nodes. Its keys are nodes.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	events    *client.Recorder
	loop      *reconcile.Loop
	nodes     *informer.Informer[*corev1.Node]
	leases    *informer.Informer[*coordinationv1.Lease]
	pods      *informer.Informer[*corev1.Pod]
	pulses    pulses
	zones     zones
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		log:       cfg.Log,
		nodes:     controller.Mirror(cfg.Mirrors, client.Nodes),
		leases:    controller.Mirror(cfg.Mirrors, client.Leases),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		pulses:    pulses{known: map[string]*pulse{}},
		zones:     newZones(),
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	controller.IndexNodes(c.pods)
	c.nodes.Subscribe(c.nodeChanged)
	c.leases.Subscribe(func(e informer.Event[*coordinationv1.Lease]) {
		if e.New != nil && e.New.Namespace == corev1.NamespaceNodeLease {
			c.pulses.lease(e.New, time.Now())
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "node" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Nodes.GroupVersionResource, client.Leases.GroupVersionResource, client.Pods.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.Nodes.GroupVersionResource, Part: "spec.taints[node.kubernetes.io]"},
		{Resource: client.Nodes.GroupVersionResource, Part: "metadata.labels[beta.kubernetes.io]"},
		{Resource: client.Nodes.GroupVersionResource, Part: "status.conditions[silent node]"},
		{Resource: client.Pods.GroupVersionResource, Part: "status.conditions[Ready, node lost]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// nodeChanged looks at a node, and at all that are not ready when one has become
// ready or ceased to be: it may be the end or the start of an eviction stop.
func (c *Controller) nodeChanged(e informer.Event[*corev1.Node]) {
	node := e.Object()
	now := time.Now()
	c.zones.note(node.Name, e.New)
	if e.New == nil {
		c.pulses.forget(node.Name)
		c.nodeEvent(node, "RemovingNode", fmt.Sprintf("Removing Node %v from Controller", node.Name))
	} else {
		c.pulses.status(node, now)
		if e.Old == nil {
			c.nodeEvent(node, "RegisteredNode", fmt.Sprintf("Registered Node %v in Controller", node.Name))
		}
	}
	c.loop.Enqueue(controller.KeyOf(node))
	if e.Old != nil && e.New != nil && isReady(e.Old) == isReady(e.New) {
		return
	}
	for _, other := range c.zones.unready() {
		if other != node.Name {
			c.loop.Enqueue(reconcile.Key{Name: other})
		}
	}
}

// nodeEvent tells of a node; by old custom the event's uid is the node's own.
func (c *Controller) nodeEvent(node *corev1.Node, reason, message string) {
	c.events.Eventf(node, corev1.EventTypeNormal, reason, "Node %s event: %s", node.Name, message)
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	node, ok := c.nodes.Get("", key.Name)
	if !ok {
		return 0, nil
	}
	now := time.Now()
	health := c.zones.judge()
	measure.From(ctx).Zones(health.byKey())
	if c.zones.recovered(health) {
		c.pulses.reset(now) // everybody gets the time to speak again
	}
	silent, next := c.pulses.silent(node, now)
	if silent {
		if back, err := c.heard(ctx, node); err != nil || back {
			return grace, err
		}
		if status, changed := silenced(node, now); changed {
			return grace, c.writeSilence(ctx, node, status)
		}
	}
	if err := c.pulses.once(node, func() error { return c.unreadyPods(ctx, node) }); err != nil {
		return 0, err
	}
	if wrote, err := c.label(ctx, node); wrote || err != nil {
		return grace, err // the node as it is now comes back as an event
	}
	wait, err := c.taint(ctx, node, health, now)
	if err != nil {
		return 0, err
	}
	if silent {
		return wait, nil // nothing to wait for but its return, which is an event
	}
	if wait == 0 || next < wait {
		wait = next
	}
	return wait, nil
}

// heard asks the server itself for the lease before a node is given up: the
// mirror may be what is behind.
func (c *Controller) heard(ctx context.Context, node *corev1.Node) (bool, error) {
	lease, err := client.Leases.Get(ctx, c.transport, corev1.NamespaceNodeLease, node.Name)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("get lease of node %q: %w", node.Name, err)
	}
	return c.pulses.lease(lease, time.Now()), nil
}

func (c *Controller) writeSilence(ctx context.Context, node *corev1.Node, status corev1.NodeStatus) error {
	wasReady := isReady(node)
	next := node.DeepCopy()
	next.Status = status
	if _, err := client.Nodes.UpdateStatus(ctx, c.transport, next); err != nil {
		return fmt.Errorf("mark node %q as unknown: %w", node.Name, err)
	}
	c.log.Warn("node has gone silent", "node", node.Name)
	if wasReady {
		c.events.Eventf(node, corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: %s", node.Name, "NodeNotReady")
	}
	return nil
}

// unreadyPods takes the pods of a node that is silent out of service, those too that are
// going: nobody knows whether they still serve.
func (c *Controller) unreadyPods(ctx context.Context, node *corev1.Node) error {
	for _, pod := range controller.OnNode(c.pods, node.Name) {
		ready, _ := controller.Ready(pod)
		if !ready {
			continue
		}
		next := *pod.Status.DeepCopy()
		for _, cond := range next.Conditions {
			if cond.Type == corev1.PodReady {
				cond.Status = corev1.ConditionFalse
				controller.SetPodCondition(&next, cond, time.Now())
			}
		}
		if err := controller.PatchPodStatus(ctx, c.transport, pod, next); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		c.events.Event(pod, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	return nil
}
