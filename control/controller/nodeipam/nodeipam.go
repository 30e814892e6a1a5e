// Package nodeipam keeps a promise: every node has a range of addresses for its
// pods, of each of the cluster's ranges one, that no other node has. It follows
// upstream's pkg/controller/nodeipam with the range allocator.
package nodeipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
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

const (
	component = "node-controller"
	source    = "cidrAllocator"
	// full is how long a node without a range waits before it is tried again,
	// should no node go.
	full = 5 * time.Minute
)

// Config says what is shared out.
type Config struct {
	// Clusters are the ranges of all pods: one, or one of each family.
	Clusters []netip.Prefix
	// Bits4 and Bits6 are the sizes of a node's ranges; 0 means upstream's
	// defaults, 24 and 64.
	Bits4, Bits6 int
	// Own are ranges that nodes bring themselves, by the node's name: they get these
	// and nothing else, and nobody else gets them.
	Own map[string]netip.Prefix
	// Reserved are ranges within Clusters that no node gets: the services'.
	Reserved []netip.Prefix
}

// Controller gives ranges out. Its keys are nodes.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	nodes     *informer.Informer[*corev1.Node]
	pools     []*pool
	own       map[string]netip.Prefix

	mu sync.Mutex
	// given are ranges that were written and that the mirror does not show yet.
	given map[string][]netip.Prefix
}

// New makes the controller, and complains about ranges that cannot be shared out.
func New(cfg controller.Config, ranges Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	pools, err := poolsOf(ranges)
	if err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component), pools: pools, own: ranges.Own, given: map[string][]netip.Prefix{},
		nodes: controller.Mirror(cfg.Mirrors, client.Nodes),
	}
	c.events = client.NewRecorder(c.transport, source, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 1, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		if e.New == nil { // what it had, another may have
			c.forget(e.Old.Name)
			for _, n := range c.nodes.List() {
				if n.Spec.PodCIDR == "" {
					c.loop.Enqueue(controller.KeyOf(n))
				}
			}
			return
		}
		if e.New.Spec.PodCIDR == "" {
			c.loop.Enqueue(controller.KeyOf(e.New))
			return
		}
		c.forget(e.New.Name)
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "nodeipam" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Nodes.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.Nodes.GroupVersionResource, Part: "spec.podCIDRs"}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	node, ok := c.nodes.Get("", key.Name)
	if !ok || node.Spec.PodCIDR != "" || node.DeletionTimestamp != nil {
		return 0, nil
	}
	ranges, ok := c.choose(key.Name)
	if !ok {
		c.events.Eventf(node, corev1.EventTypeNormal, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", node.Name)
		return full, nil
	}
	err := c.write(ctx, node, ranges)
	switch {
	case apierrors.IsNotFound(err):
		c.forget(key.Name)
		return 0, nil
	case apierrors.IsInvalid(err), apierrors.IsConflict(err): // somebody else gave it one
		c.forget(key.Name)
		return 0, err
	}
	return 0, err // of other failures, we do not know whether it has been written: it is the node's
}

// write gives the node its ranges, if it is still the same node.
func (c *Controller) write(ctx context.Context, node *corev1.Node, ranges []netip.Prefix) error {
	var texts []string
	for _, r := range ranges {
		texts = append(texts, r.String())
	}
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID}, "spec": map[string]any{"podCIDR": texts[0], "podCIDRs": texts},
	})
	if err != nil {
		return fmt.Errorf("encode ranges of node %q: %w", node.Name, err)
	}
	at := target.Of(client.Nodes.GroupVersionResource, "").Object(node.Name)
	if _, err := client.Nodes.Patch(ctx, c.transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: data}); err != nil {
		return fmt.Errorf("give node %q its pod ranges: %w", node.Name, err)
	}
	return nil
}

// choose finds ranges that nobody has; those that the node was given before stay
// its.
func (c *Controller) choose(name string) ([]netip.Prefix, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if had := c.given[name]; had != nil {
		return had, true
	}
	if own, ok := c.own[name]; ok {
		c.given[name] = []netip.Prefix{own}
		return c.given[name], true
	}
	var taken []netip.Prefix
	for _, own := range c.own {
		taken = append(taken, own)
	}
	for _, n := range c.nodes.List() {
		for _, text := range append(slices.Clone(n.Spec.PodCIDRs), n.Spec.PodCIDR) {
			if p, err := netip.ParsePrefix(text); err == nil {
				taken = append(taken, p)
			}
		}
	}
	for _, had := range c.given {
		taken = append(taken, had...)
	}
	var chosen []netip.Prefix
	for _, p := range c.pools {
		r, ok := p.free(taken)
		if !ok {
			return nil, false
		}
		chosen = append(chosen, r)
	}
	c.given[name] = chosen
	return chosen, true
}

func (c *Controller) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.given, name)
}

// poolsOf checks the ranges.
func poolsOf(cfg Config) ([]*pool, error) {
	if len(cfg.Clusters) == 0 || len(cfg.Clusters) > 2 {
		return nil, fmt.Errorf("node ranges: %d cluster ranges, want one, or one of each family", len(cfg.Clusters))
	}
	if len(cfg.Clusters) == 2 && cfg.Clusters[0].Addr().Is4() == cfg.Clusters[1].Addr().Is4() {
		return nil, errors.New("node ranges: both cluster ranges are of one family")
	}
	var pools []*pool
	for _, whole := range cfg.Clusters {
		bits := cfg.Bits6
		if bits == 0 {
			bits = 64
		}
		if whole.Addr().Is4() {
			if bits = cfg.Bits4; bits == 0 {
				bits = 24
			}
		}
		p, err := newPool(whole, bits, cfg.Reserved)
		if err != nil {
			return nil, err
		}
		pools = append(pools, p)
	}
	return pools, nil
}
