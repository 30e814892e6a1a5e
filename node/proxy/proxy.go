// Package proxy makes services reachable from one node: a connection to a
// service's address, or to a node port, goes to one of its endpoints. The work
// is done by the kernel's nftables; this package keeps its maps. The rules are
// fixed: what a service adds are elements of maps, and there is one chain for
// each number of endpoints, so a table of ten thousand services is applied in a
// fraction of a second and a change costs the same in a table of any size.
//
// Answers must come back through the node that translated the question. They do
// for pods on Sampan's own network, where even pods of one node reach each
// other by routing, whatever net.bridge.bridge-nf-call-iptables says. A foreign
// CNI plugin that bridges pods of one node directly needs that setting to be 1,
// as it does under kube-proxy.
//
// Node ports at 127.0.0.1 are for the node's own programs, and only where the
// wiring has made that safe: see Config.Loopback.
//
// Not done: node ports at ::1 (the kernel has no way for it).
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/internal/backoff"
)

const (
	// gather is how long after one write the next may come: the first change is
	// written at once, a burst behind it in one go.
	gather = 75 * time.Millisecond
	// resync is how often the kernel's tables are read back and put right, in
	// case somebody else has touched them.
	resync = time.Hour
	// ours selects the services and slices that kube-proxy follows: not what another
	// proxy has been asked to serve, nor what needs none.
	ours = "!service.kubernetes.io/service-proxy-name,!" + corev1.IsHeadlessService
)

// Config says for which node a Proxy works.
type Config struct {
	// Transport reads services and endpoint slices.
	Transport client.Transport
	// NodeName tells endpoints on this node from others.
	NodeName string
	// NodeIPs are the addresses at which node ports are served. A family with
	// none here serves them at every address of the host, except loopback.
	NodeIPs []netip.Addr
	// PodCIDRs are the ranges of this node's pods, at least one. Their families
	// are those that are served. What pods of this node send keeps its source.
	PodCIDRs []netip.Prefix
	// Local are service addresses that the node answers itself; they are left
	// alone.
	Local []netip.Addr
	// Loopback serves node ports at 127.0.0.1 too, to the node's own programs. It
	// is the caller's promise that the interface towards PodCIDRs has
	// route_localnet, without which answers to loopback are thrown away, and a
	// guard that drops what comes in there from or to 127.0.0.0/8, without which
	// pods reach what the node's programs keep to themselves (CVE-2020-8558).
	//
	// The kernel lets nothing from 127.0.0.1 out of other interfaces, so only
	// endpoints in PodCIDRs and at NodeIPs are used there; while a service has
	// none of those, 127.0.0.1 refuses, whatever it has on other nodes.
	Loopback bool
	// NetNS is the path of the network namespace to work in; empty means that of
	// the process.
	NetNS string
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Proxy keeps the service tables of one node.
type Proxy struct {
	cfg      Config
	log      *slog.Logger
	site     *site
	services *informer.Informer[*corev1.Service]
	slices   *informer.Informer[*discoveryv1.EndpointSlice]
	node     *informer.Informer[*corev1.Node] // this one alone
	health   *health
	retry    backoff.Policy

	wake chan struct{} // has room for one
	mu   sync.Mutex
	todo map[types.NamespacedName]struct{}
	zone string // of the node, for the next plans

	// Only Run's goroutine uses these, and site.
	state  *state
	tables *tables
	ports  *healthPorts
	nl     *netlink.Handle
}

const byService = "service"

// New checks cfg; nothing happens until Run.
func New(cfg Config) (*Proxy, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if len(cfg.PodCIDRs) == 0 {
		return nil, errors.New("service proxy: no pod CIDRs")
	}
	s := &site{name: cfg.NodeName, pods: cfg.PodCIDRs, local: cfg.Local, nodes: cfg.NodeIPs, loopback: cfg.Loopback}
	for _, p := range cfg.PodCIDRs {
		if family := familyOf(p.Addr()); !s.has(p.Addr()) {
			s.families = append(s.families, family)
		}
	}
	slices.Sort(s.families)
	p := &Proxy{
		cfg:      cfg,
		log:      cfg.Log.With("component", "proxy"),
		site:     s,
		services: informer.New(cfg.Transport, client.Services, informer.Options{Log: cfg.Log, LabelSelector: ours}),
		slices:   informer.New(cfg.Transport, client.EndpointSlices, informer.Options{Log: cfg.Log, LabelSelector: ours}),
		node: informer.New(cfg.Transport, client.Nodes, informer.Options{Log: cfg.Log,
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, cfg.NodeName).String()}),
		health: &health{},
		retry:  backoff.Policy{Min: 200 * time.Millisecond, Max: time.Minute, Jitter: 0.5},
		wake:   make(chan struct{}, 1),
		todo:   map[types.NamespacedName]struct{}{},
		state:  newState(s),
	}
	p.ports = &healthPorts{log: p.log, netNS: cfg.NetNS, nodes: cfg.NodeIPs, health: p.health, open: map[types.NamespacedName]*healthPort{}}
	p.node.Subscribe(func(e informer.Event[*corev1.Node]) {
		p.health.nodeIs(e.New)
		p.moved(e.New)
	})
	p.slices.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string {
		return []string{ownerOf(s).String()}
	})
	p.services.Subscribe(func(e informer.Event[*corev1.Service]) {
		p.note(types.NamespacedName{Namespace: e.Object().Namespace, Name: e.Object().Name})
	})
	p.slices.Subscribe(func(e informer.Event[*discoveryv1.EndpointSlice]) {
		for _, s := range []*discoveryv1.EndpointSlice{e.Old, e.New} {
			if s != nil {
				p.note(ownerOf(s))
			}
		}
	})
	return p, nil
}

func ownerOf(s *discoveryv1.EndpointSlice) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

// note remembers that a service must be looked at.
func (p *Proxy) note(service types.NamespacedName) {
	p.mu.Lock()
	p.todo[service] = struct{}{}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// moved looks at every service again when the node is in another zone.
func (p *Proxy) moved(node *corev1.Node) {
	if node == nil {
		return // it comes back, or there is nobody any more who might care
	}
	p.mu.Lock()
	was := p.zone
	p.zone = node.Labels[corev1.LabelTopologyZone]
	same := p.zone == was
	p.mu.Unlock()
	if same {
		return
	}
	for _, svc := range p.services.List() {
		p.note(types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name})
	}
}

// Run keeps the tables until ctx ends. They stay when it returns: connections
// and services outlive the process, and the next Run takes them over without a
// gap. It fails only when the network namespace cannot be opened.
func (p *Proxy) Run(ctx context.Context) error {
	done, err := p.open()
	if err != nil {
		return fmt.Errorf("service proxy: %w", err)
	}
	defer done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = p.services.Run(ctx) }) // ends only with ctx
	wg.Go(func() { _ = p.slices.Run(ctx) })
	wg.Go(func() { _ = p.node.Run(ctx) })
	defer p.ports.close()
	for _, synced := range []<-chan struct{}{p.services.Synced(), p.slices.Synced(), p.node.Synced()} {
		select {
		case <-synced:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return p.loop(ctx)
}

func (p *Proxy) open() (done func(), err error) {
	ns, closeNS, err := openNS(p.cfg.NetNS)
	if err != nil {
		return nil, err
	}
	if p.nl, err = handleAt(ns, unix.NETLINK_NETFILTER); err != nil {
		closeNS()
		return nil, err
	}
	if p.tables, err = openTables(&p.cfg, p.site.families, ns); err != nil {
		p.nl.Close()
		closeNS()
		return nil, err
	}
	return func() {
		if err := p.tables.close(); err != nil {
			p.log.Warn("service proxy: the socket to the tables did not close", "error", err)
		}
		p.nl.Close()
		closeNS()
	}, nil
}

func openNS(path string) (fd int, done func(), err error) {
	if path == "" {
		return 0, func() {}, nil
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return 0, nil, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	return int(ns), func() { ns.Close() }, nil
}

func handleAt(ns int, families ...int) (*netlink.Handle, error) {
	if ns == 0 {
		return netlink.NewHandle(families...)
	}
	return netlink.NewHandleAt(netns.NsHandle(ns), families...)
}

func (p *Proxy) loop(ctx context.Context) error {
	full := time.NewTicker(resync)
	defer full.Stop()
	failures, all := 0, true
	for {
		wait := gather
		err := p.sync(all)
		p.health.synced(err, time.Now())
		if err != nil {
			failures++
			wait = p.retry.After(failures)
			p.log.Error("services cannot be written", "retry", wait.Round(time.Millisecond), "err", err)
		} else {
			failures = 0
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if all = failures > 0; all {
			continue
		}
		select {
		case <-p.wake:
		case <-full.C:
			all = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sync brings the tables to what the mirrors say; all also reads them back.
func (p *Proxy) sync(all bool) error {
	p.mu.Lock()
	todo := p.todo
	p.todo = map[types.NamespacedName]struct{}{}
	p.site.zone = p.zone
	p.mu.Unlock()
	for service := range todo {
		p.replan(service)
	}
	if all || !p.tables.complete() {
		all = true
		if err := p.tables.read(); err != nil {
			return err
		}
	}
	del, add := p.state.diff(p.tables.have, all)
	if len(del)+len(add) == 0 && p.tables.complete() {
		p.state.clear()
		return nil
	}
	began := time.Now()
	if err := p.tables.write(del, add); err != nil {
		return err
	}
	if err := forget(p.nl, p.site.families, newStale(p.state, p.cfg.NodeIPs)); err != nil {
		p.log.Warn("stale UDP flows stay", "err", err)
	}
	p.state.clear()
	p.log.Debug("services written", "added", len(add), "removed", len(del), "took", time.Since(began))
	return nil
}

func (p *Proxy) replan(service types.NamespacedName) {
	svc, ok := p.services.Get(service.Namespace, service.Name)
	if !ok {
		p.state.set(service, time.Time{}, nil)
		p.ports.set(service, nil, 0)
		return
	}
	endpoints := p.slices.ByIndex(byService, service.String())
	p.state.set(service, svc.CreationTimestamp.Time, plan(svc, endpoints, p.site))
	p.ports.set(service, svc, localReady(endpoints, p.cfg.NodeName))
}

// Cleanup removes the tables from the network namespace at path, or from the
// process's own when it is empty. It needs no API server and no Proxy, and
// succeeds when there is nothing.
func Cleanup(netNS string) error {
	ns, done, err := openNS(netNS)
	if err != nil {
		return err
	}
	defer done()
	return removeTables(ns)
}
