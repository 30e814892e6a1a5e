// Package segment divides the one network of pods into networks by name, which is what
// docker's networks promise: only who is on a network together reaches each other, knows
// the others' names, and a network may have no way out. A pod may be on several.
//
// A network is a headless Service with Label, which selects its pods by a label of its
// own (Member). So any node learns from Services and their EndpointSlices, which it may
// read, who is on what; it needs to read no pods. Those of its own engine it knows before
// their first container starts, from Attached. A pod that is on no network by name is on
// the one that all others are on, "bridge".
//
// The rules are symmetric and know nothing of connections: who leaves a network has
// left it with the next packet. They stay when the process ends.
//
// Not done: what a CNI plugin sends past the host's routing is not seen here.
package segment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
)

// The words by which objects say who is on which network.
const (
	// Label is on a network's Service, with its name.
	Label = "sampan.dev/network-name"
	// Member begins the label of a pod that is on a network, whose name follows.
	Member = "network.sampan.dev/"
	// IsMember is the value of that label.
	IsMember = "member"
	// InternalAnnotation is on the Service of a network without a way out.
	InternalAnnotation = "sampan.dev/network-internal"
	// AliasPrefix begins annotations of the Service, with the further names of the pod
	// whose name follows, and commas between them.
	AliasPrefix = "aliases.sampan.dev/"
	// Bridge is the network of all pods that are on no other, None one that nobody else
	// is on.
	Bridge = "bridge"
	None   = "none"
)

// knownWait is how long a pod on networks by name waits for what the API server says of
// them, after a start of this process: with less, the rules of all others would go.
const knownWait = 10 * time.Second

// Config says where Segments work.
type Config struct {
	// Pods are the ranges of all pods of the cluster.
	Pods []netip.Prefix
	// DNS is the address at which the node answers names, port 53: what a pod without a
	// way out may ask.
	DNS netip.Addr
	// Domain is the cluster's.
	Domain string
	// Log defaults to slog.Default().
	Log *slog.Logger
}

// Segments keeps the rules of one node, and knows the names.
type Segments struct {
	cfg   Config
	log   *slog.Logger
	table *table

	// known closes when the networks of the cluster are.
	known chan struct{}

	mu sync.RWMutex
	// local are this node's pods as its engine has them, owners whose their addresses are.
	local  map[types.UID]*pod
	owners map[netip.Addr]owner
	// services and slices are nil until Run.
	services *informer.Informer[*corev1.Service]
	slices   *informer.Informer[*discoveryv1.EndpointSlice]
	view     view

	wake chan struct{} // has room for one
}

// New makes Segments. It touches nothing.
func New(cfg Config) *Segments {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Segments{
		cfg: cfg, log: cfg.Log.With("component", "segment"), table: &table{pods: cfg.Pods, dns: cfg.DNS},
		local: map[types.UID]*pod{}, owners: map[netip.Addr]owner{},
		known: make(chan struct{}), wake: make(chan struct{}, 1),
	}
}

// Run follows the networks of the cluster until ctx ends. It is called once.
func (s *Segments) Run(ctx context.Context, t client.Transport) error {
	opts := informer.Options{Log: s.cfg.Log, LabelSelector: Label}
	services, slices := informer.New(t, client.Services, opts), informer.New(t, client.EndpointSlices, opts)
	services.Subscribe(func(informer.Event[*corev1.Service]) { s.changed() })
	slices.Subscribe(func(informer.Event[*discoveryv1.EndpointSlice]) { s.changed() })
	s.mu.Lock()
	s.services, s.slices = services, slices
	s.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = services.Run(ctx) }) // each ends with ctx only
	wg.Go(func() { _ = slices.Run(ctx) })
	for _, synced := range []<-chan struct{}{services.Synced(), slices.Synced()} {
		select {
		case <-synced:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	close(s.known)
	s.changed()
	for {
		select {
		case <-s.wake:
			if err := s.refresh(); err != nil {
				s.log.Error("networks are not kept apart", "error", err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Segments) changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Attached tells of a pod of this node that has got its addresses, and returns when it
// is kept to its networks. It is to be called before the pod's containers start.
func (s *Segments) Attached(ctx context.Context, a Attachment) error {
	p := &pod{uid: types.UID(a.UID), namespace: a.Namespace, name: a.Name, hostname: a.Hostname, addrs: a.IPs, fresh: namesIn(a.Labels)}
	if err := s.await(ctx, p); err != nil {
		return fmt.Errorf("keep pod %s/%s to its networks: %w", a.Namespace, a.Name, err)
	}
	s.mu.Lock()
	for _, ip := range a.IPs {
		s.owners[ip] = owner{p.uid, p.namespace}
	}
	if len(p.fresh) > 0 {
		s.local[p.uid] = p
	}
	// One that is on no network may have the address of one that was.
	concerned := len(p.fresh) > 0 || slices.ContainsFunc(a.IPs, s.view.fenced)
	s.mu.Unlock()
	if !concerned {
		return nil
	}
	if err := s.refresh(); err != nil {
		return fmt.Errorf("keep pod %s/%s to its networks: %w", a.Namespace, a.Name, err)
	}
	return nil
}

// await waits until the cluster's networks are known, where that matters to a pod.
func (s *Segments) await(ctx context.Context, p *pod) error {
	if len(p.fresh) == 0 {
		return nil
	}
	select {
	case <-s.known:
		return nil
	case <-time.After(knownWait):
		return errors.New("the API server has not told yet who else is on them")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Attachment is a pod of this node.
type Attachment struct {
	UID, Namespace, Name, Hostname string
	Labels                         map[string]string
	IPs                            []netip.Addr
}

// Detached tells that a pod's addresses are nobody's any more.
func (s *Segments) Detached(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ip, owner := range s.owners {
		if owner.uid == types.UID(uid) {
			delete(s.owners, ip)
		}
	}
	if s.local[types.UID(uid)] != nil {
		delete(s.local, types.UID(uid))
		s.changed()
	}
}

// refresh looks at everything anew, and tells the kernel what has changed.
func (s *Segments) refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := picture{local: s.local, owners: s.owners, ranges: s.cfg.Pods}
	if s.services != nil {
		known.services, known.slices = s.services.List(), s.slices.List()
	}
	s.view = known.view()
	return s.table.apply(s.view)
}

// Cleanup removes the rules.
func Cleanup() error {
	t := &table{}
	return errors.Join(t.apply(view{}), t.close())
}
