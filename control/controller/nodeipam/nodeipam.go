// Package nodeipam keeps a promise: every node has a range of addresses for its
// pods, of each of the cluster's ranges one, that no other node has. It follows
// upstream's pkg/controller/nodeipam with the range allocator.
package nodeipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// workers is how many nodes get their ranges at once: what takes time is the write.
const workers = 8

// Controller gives ranges out. Its keys are nodes.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	nodes     *informer.Informer[*corev1.Node]
	own       map[string]netip.Prefix

	mu    sync.Mutex // guards what follows
	pools []*pool
	// held are the ranges that each node has, or was given though the mirror does not
	// show it yet. What is held is taken in the pools.
	held map[string][]netip.Prefix
	// waiting are nodes for which there was no range.
	waiting map[string]bool
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
		transport: cfg.Transport(component), pools: pools, own: ranges.Own,
		held: map[string][]netip.Prefix{}, waiting: map[string]bool{},
		nodes: controller.Mirror(cfg.Mirrors, client.Nodes),
	}
	c.events = client.NewRecorder(c.transport, source, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: workers, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		switch {
		case e.New == nil: // what it had, another may have
			for _, name := range c.release(e.Old.Name) {
				c.loop.Enqueue(reconcile.Key{Name: name})
			}
		case e.New.Spec.PodCIDR == "":
			c.loop.Enqueue(controller.KeyOf(e.New))
		default:
			c.hold(e.New.Name, rangesOf(e.New))
		}
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
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err) { // it is gone, or somebody else gave it one
		c.giveBack(key.Name, ranges)
	}
	if apierrors.IsNotFound(err) {
		return 0, nil
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
	delete(c.waiting, name)
	if had := c.held[name]; had != nil {
		return had, true
	}
	if own, ok := c.own[name]; ok {
		c.swap(name, []netip.Prefix{own})
		return c.held[name], true
	}
	var chosen []netip.Prefix
	for _, p := range c.pools {
		r, ok := p.free()
		if !ok {
			c.waiting[name] = true
			return nil, false
		}
		chosen = append(chosen, r)
	}
	c.swap(name, chosen)
	return chosen, true
}

// hold notes what a node has by the mirror.
func (c *Controller) hold(name string, ranges []netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, name)
	if !slices.Equal(c.held[name], ranges) {
		c.swap(name, ranges)
	}
}

// release frees what a node that is gone had, and returns who waits for a range.
func (c *Controller) release(name string) (waiting []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.swap(name, nil)
	delete(c.waiting, name)
	return slices.Collect(maps.Keys(c.waiting))
}

// giveBack frees ranges that the node did not take after all, unless the mirror has
// told of others meanwhile.
func (c *Controller) giveBack(name string, ranges []netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(c.held[name], ranges) {
		c.swap(name, nil)
	}
}

// swap replaces what a node holds. The caller has mu.
func (c *Controller) swap(name string, ranges []netip.Prefix) {
	for _, p := range c.pools {
		for _, r := range c.held[name] {
			p.mark(r, -1)
		}
		for _, r := range ranges {
			p.mark(r, +1)
		}
	}
	if c.held[name] = ranges; ranges == nil {
		delete(c.held, name)
	}
}

// rangesOf are the ranges that a node has. The API server has validated them.
func rangesOf(n *corev1.Node) (ranges []netip.Prefix) {
	texts := n.Spec.PodCIDRs
	if len(texts) == 0 {
		texts = []string{n.Spec.PodCIDR}
	}
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, p)
		}
	}
	return ranges
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
		p, err := newPool(whole, bits)
		if err != nil {
			return nil, err
		}
		for _, r := range cfg.Reserved {
			p.mark(r, +1)
		}
		for _, own := range cfg.Own { // though the node be not there yet
			p.mark(own, +1)
		}
		pools = append(pools, p)
	}
	return pools, nil
}
