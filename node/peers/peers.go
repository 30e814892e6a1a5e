// Package peers keeps the routes by which a node reaches the pods of the others: for
// each other Node that has a pod range and an address, a route to the range by way of
// the address. Nothing is wrapped up on its way, so nodes must be neighbours: in one
// network, without a router between them.
//
// The routes carry a protocol number of their own, by which they are told from
// everybody else's; they stay when Run ends, as the pods do.
package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
)

// protocol marks our routes (rtnetlink(7), RTPROT): no routing daemon has it.
const protocol = 83

// resync is how often the routes are compared though no node has changed: an
// interface that went down takes its routes along.
const resync = time.Minute

// Comparing costs what there are of nodes, and while nodes come in thousands each of
// them asks for it: the routes rest for calm times as long as the last comparison
// took, and for mostCalm at most.
const (
	calm     = 10
	mostCalm = 5 * time.Second
)

// maxRoutes bounds the routes of one node; upstream's largest cluster has 5,000 nodes.
const maxRoutes = 1 << 16

// Config says whose peers these are.
type Config struct {
	// Transport reads nodes.
	Transport client.Transport
	// NodeName is this node's name.
	NodeName string
	// NetNS is the path of the network namespace to work in; empty means that of the
	// process.
	NetNS string
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Peers keeps the routes of one node.
type Peers struct {
	cfg   Config
	nodes *informer.Informer[*corev1.Node]
	wake  chan struct{} // has room for one
	// told are the nodes of which was told that they are out of reach, and when; only
	// Run uses them.
	told   map[string]bool
	toldAt time.Time
}

// New returns Peers; nothing happens until Run.
func New(cfg Config) *Peers {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	p := &Peers{cfg: cfg, wake: make(chan struct{}, 1),
		nodes: informer.New(cfg.Transport, client.Nodes, informer.Options{Log: cfg.Log})}
	p.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		if e.Old != nil && e.New != nil && slices.Equal(waysTo(e.Old), waysTo(e.New)) {
			return // heartbeats
		}
		select {
		case p.wake <- struct{}{}:
		default:
		}
	})
	return p
}

// Run keeps the routes until ctx ends. It fails only when the network namespace
// cannot be opened.
func (p *Peers) Run(ctx context.Context) error {
	handle, closeHandle, err := open(p.cfg.NetNS)
	if err != nil {
		return fmt.Errorf("routes to other nodes: %w", err)
	}
	defer closeHandle()
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	running.Go(func() { _ = p.nodes.Run(ctx) }) // ends only with ctx
	select {
	case <-p.nodes.Synced():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	again := time.NewTicker(resync)
	defer again.Stop()
	for {
		began := time.Now()
		p.align(handle)
		select {
		case <-time.After(min(calm*time.Since(began), mostCalm)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case <-p.wake:
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// way is a route that there should be.
type way struct {
	to netip.Prefix
	by netip.Addr
}

// waysTo are the ways to the pods of a node.
func waysTo(n *corev1.Node) []way {
	var ways []way
	for _, text := range rangesOf(n) {
		to, err := netip.ParsePrefix(text)
		if err != nil {
			continue // validated by the API server
		}
		for _, a := range n.Status.Addresses {
			by, err := netip.ParseAddr(a.Address)
			if err == nil && a.Type == corev1.NodeInternalIP && by.Is4() == to.Addr().Is4() {
				ways = append(ways, way{to: to.Masked(), by: by})
				break
			}
		}
	}
	return ways
}

func rangesOf(n *corev1.Node) []string {
	if len(n.Spec.PodCIDRs) > 0 {
		return n.Spec.PodCIDRs
	}
	return []string{n.Spec.PodCIDR}
}

// align makes the kernel's routes those that there should be.
func (p *Peers) align(h *netlink.Handle) {
	want := map[way]string{}
	for _, n := range p.nodes.List() {
		if n.Name == p.cfg.NodeName || len(want) >= maxRoutes {
			continue
		}
		for _, w := range waysTo(n) {
			want[w] = n.Name
		}
	}
	have, err := ours(h)
	if err != nil {
		p.cfg.Log.Warn("the routes to other nodes can't be read", "error", err)
		return
	}
	for w, route := range have {
		if _, ok := want[w]; ok {
			delete(want, w)
			continue
		}
		if err := h.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			p.cfg.Log.Warn("a route that leads nowhere any more can't be removed", "to", w.to, "error", err)
		}
	}
	far := map[string]bool{}
	var last error
	for w, node := range want {
		if err := h.RouteReplace(routeOf(w)); err != nil {
			far[node], last = true, fmt.Errorf("node %q at %s: %w", node, w.by, err)
		}
	}
	p.tell(far, last)
}

// tell says that nodes are out of reach when there are some that were not among them
// before, and not again before there was time to see to it.
func (p *Peers) tell(far map[string]bool, last error) {
	maps.DeleteFunc(p.told, func(node string, _ bool) bool { return !far[node] })
	if len(far) == len(p.told) || time.Since(p.toldAt) < resync {
		return
	}
	p.cfg.Log.Warn("the pods of other nodes are out of reach: nodes must be in one network", "nodes", len(far), "error", last)
	p.told, p.toldAt = far, time.Now()
}

func routeOf(w way) *netlink.Route {
	return &netlink.Route{
		Dst: &net.IPNet{IP: w.to.Addr().AsSlice(), Mask: net.CIDRMask(w.to.Bits(), w.to.Addr().BitLen())},
		Gw:  w.by.AsSlice(), Protocol: protocol, Table: unix.RT_TABLE_MAIN,
	}
}

// ours are the routes that carry our mark.
func ours(h *netlink.Handle) (map[way]netlink.Route, error) {
	found := map[way]netlink.Route{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.RouteListFiltered(family, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			at, ok := netip.AddrFromSlice(r.Dst.IP)
			by, isGateway := netip.AddrFromSlice(r.Gw)
			if !ok || !isGateway {
				continue
			}
			bits, _ := r.Dst.Mask.Size()
			found[way{to: netip.PrefixFrom(at.Unmap(), bits), by: by.Unmap()}] = r
		}
	}
	return found, nil
}

// Cleanup removes all routes that a Run has left in the network namespace at the
// path, or in the process's.
func Cleanup(ns string) error {
	h, done, err := open(ns)
	if err != nil {
		return fmt.Errorf("remove routes to other nodes: %w", err)
	}
	defer done()
	have, err := ours(h)
	if err != nil {
		return fmt.Errorf("remove routes to other nodes: %w", err)
	}
	var errs []error
	for _, r := range have {
		if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route %s: %w", r.Dst, err))
		}
	}
	return errors.Join(errs...)
}

func open(path string) (*netlink.Handle, func(), error) {
	if path == "" {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return nil, nil, err
		}
		return h, h.Close, nil
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, nil, err
	}
	return h, func() { h.Close(); ns.Close() }, nil
}
