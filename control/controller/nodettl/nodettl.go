// Package nodettl keeps a promise: each node's annotation says for how long it may
// believe what it knows of secrets and config maps, longer in larger clusters. It
// follows upstream's pkg/controller/ttl.
package nodettl

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

const component = "ttl-controller"

// step is a size of clusters. Steps overlap, so that a cluster at a border does not
// go to and fro.
type step struct {
	least, most int // nodes
	seconds     int
}

var steps = [...]step{{0, 100, 0}, {90, 500, 15}, {450, 1000, 30}, {900, 2000, 60}, {1800, 1 << 31, 300}}

// Controller annotates nodes. Its keys are nodes.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	nodes     *informer.Informer[*corev1.Node]

	mu    sync.Mutex
	count int
	at    int // index of steps
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{transport: cfg.Transport(component), nodes: controller.Mirror(cfg.Mirrors, client.Nodes)}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 1, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		switch {
		case e.Old == nil:
			c.sized(+1)
		case e.New == nil:
			c.sized(-1)
		}
		if e.New != nil {
			if text, ok := e.New.Annotations[corev1.ObjectTTLAnnotationKey]; !ok || text != strconv.Itoa(c.wanted()) {
				c.loop.Enqueue(controller.KeyOf(e.New))
			}
		}
	})
	return c, nil
}

// sized counts a node; where that changes the step, all nodes are looked at.
func (c *Controller) sized(by int) {
	c.mu.Lock()
	was := c.at
	c.count += by
	c.at = next(c.at, c.count)
	moved := c.at != was
	c.mu.Unlock()
	if moved {
		for _, n := range c.nodes.List() {
			c.loop.Enqueue(controller.KeyOf(n))
		}
	}
}

// next is pure: the step of a cluster of so many nodes that was in another.
func next(at, nodes int) int {
	for nodes > steps[at].most {
		at++
	}
	for nodes < steps[at].least {
		at--
	}
	return at
}

func (c *Controller) wanted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return steps[c.at].seconds
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "nodettl" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Nodes.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.Nodes.GroupVersionResource, Part: "metadata.annotations[" + corev1.ObjectTTLAnnotationKey + "]"}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	node, ok := c.nodes.Get("", key.Name)
	want := strconv.Itoa(c.wanted())
	if !ok || node.Annotations[corev1.ObjectTTLAnnotationKey] == want {
		return 0, nil
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{corev1.ObjectTTLAnnotationKey: want}}})
	if err != nil {
		return 0, fmt.Errorf("encode annotation of node %q: %w", key.Name, err)
	}
	at := target.Of(client.Nodes.GroupVersionResource, "").Object(key.Name)
	_, err = client.Nodes.Patch(ctx, c.transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: data})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("annotate node %q: %w", key.Name, err)
	}
	return 0, nil
}
