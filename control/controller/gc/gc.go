// Package gc keeps a promise: what has owners goes when the last of them has
// gone, before them where they wait for it, and stays where they let it go. It
// follows upstream's pkg/controller/garbagecollector in what owner references,
// blockOwnerDeletion and the two finalizers mean. Nothing is deleted because of
// what a mirror lacks: the server itself is asked first.
package gc

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "generic-garbage-collector"
	source    = "garbage-collector-controller"
	// workers: most of a collection is waiting for the server.
	workers = 20
	// syncWait is how long the first lists of all kinds are waited for. Upstream's.
	syncWait = 30 * time.Second
)

// ignored are kinds that come and go too fast to be worth it; they own nothing
// and expire by themselves.
var ignored = map[schema.GroupResource]bool{
	{Resource: "events"}:                         true,
	{Group: "events.k8s.io", Resource: "events"}: true,
}

// Collector removes what nobody owns any more. Its keys are uids.
type Collector struct {
	transport client.Transport
	log       *slog.Logger
	events    *client.Recorder
	loop      *reconcile.Loop
	kinds     *controller.Kinds
	remotes   *remotes
	graph     *graph
	monitors  map[schema.GroupVersionResource]*monitor // touched by Run only
}

// monitor follows one kind's metadata.
type monitor struct {
	mirror *informer.Informer[client.Object]
	stop   context.CancelFunc
}

// New makes the collector; kinds are those that it looks after.
func New(cfg controller.Config, kinds *controller.Kinds) (*Collector, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if kinds == nil {
		return nil, errors.New("garbage collector: no kinds")
	}
	c := &Collector{
		transport: cfg.Transport(component),
		log:       cfg.Log,
		kinds:     kinds,
		graph:     newGraph(),
		monitors:  map[schema.GroupVersionResource]*monitor{},
	}
	c.remotes = newRemotes(cfg, c.transport)
	c.events = client.NewRecorder(c.transport, source, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: workers, Log: cfg.Log})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Collector) Name() string { return "gc" }

// Reads implements reconcile.Reconciler: besides these every kind, through mirrors
// of its own that keep only metadata.
func (*Collector) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{services.GroupVersionResource}
}

// Writes implements reconcile.Reconciler: owner references and finalizers of
// every kind are shared with whoever sets them.
func (*Collector) Writes() []reconcile.Write { return nil }

// Everywhere implements controller.Everywhere.
func (*Collector) Everywhere() (reads bool, writes []string) {
	return true, []string{reconcile.Delete, "metadata.ownerReferences", "metadata.finalizers[orphan, foregroundDeletion]"}
}

// Run follows all kinds and collects until ctx ends. It begins once the kinds
// known at the start have been listed, or some of them could not be for a while:
// a server that is down must not keep the others' garbage.
func (c *Collector) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	changed := c.follow(ctx, &running)
	if err := c.await(ctx); err != nil {
		return err
	}
	running.Go(func() { _ = c.loop.Run(ctx) }) // ends only with ctx
	running.Go(func() { c.remotes.run(ctx) })
	for {
		select {
		case <-changed.here:
			changed = c.follow(ctx, &running)
		case <-changed.elsewhere:
			changed = c.follow(ctx, &running)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// await waits until all kinds that are followed have been listed, or syncWait is
// over.
func (c *Collector) await(ctx context.Context) error {
	enough := time.NewTimer(syncWait)
	defer enough.Stop()
	for gvr, m := range c.monitors {
		select {
		case <-m.mirror.Synced():
		case <-enough.C:
			c.log.Warn("not everything could be listed; collecting all the same", "kind", gvr)
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// changes tell of other kinds: of this server, and of others.
type changes struct{ here, elsewhere <-chan struct{} }

// follow starts monitors of new kinds and ends those of kinds that are not
// served any more; it returns what tells of the next change.
func (c *Collector) follow(ctx context.Context, running *sync.WaitGroup) (next changes) {
	kinds, here := c.kinds.List()
	others, elsewhere := c.remotes.list()
	served := map[schema.GroupVersionResource]bool{}
	for _, kind := range slices.Concat(kinds, others) {
		if ignored[kind.GroupResource()] {
			continue
		}
		served[kind.GroupVersionResource] = true
		if c.monitors[kind.GroupVersionResource] != nil {
			continue
		}
		watching, stop := context.WithCancel(ctx)
		m := &monitor{mirror: c.mirror(kind), stop: stop}
		c.monitors[kind.GroupVersionResource] = m
		running.Go(func() { _ = m.mirror.Run(watching) }) // ends only with its context
	}
	for gvr, m := range c.monitors {
		if served[gvr] {
			continue
		}
		m.stop()
		delete(c.monitors, gvr)
		for _, obj := range m.mirror.List() {
			c.graph.forget(obj.GetUID())
		}
	}
	return changes{here, elsewhere}
}

// find is the kind of an owner reference, in whichever version, here or elsewhere.
func (c *Collector) find(gvk schema.GroupVersionKind) (controller.Kind, bool) {
	if kind, ok := c.kinds.Find(gvk); ok {
		return kind, true
	}
	others, _ := c.remotes.list()
	for _, kind := range others {
		if kind.Group == gvk.Group && kind.Kind == gvk.Kind {
			return kind, true
		}
	}
	return controller.Kind{}, false
}

func (c *Collector) mirror(kind controller.Kind) *informer.Informer[client.Object] {
	r := client.Resource[client.Object]{GroupVersionResource: kind.GroupVersionResource, Kind: kind.Kind, Namespaced: kind.Namespaced}
	i := informer.New(c.transport, r, informer.Options{Log: c.log, Strip: strip})
	i.Subscribe(func(e informer.Event[client.Object]) {
		var look []types.UID
		if e.New == nil {
			look = c.graph.drop(e.Old.GetUID())
		} else {
			look = c.graph.put(nodeOf(kind, e.New))
		}
		for _, uid := range look {
			c.loop.Enqueue(reconcile.Key{Name: string(uid)})
		}
	})
	return i
}

// strip keeps of an object only what the graph is made of.
func strip(obj client.Object) client.Object {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(),
		OwnerReferences: obj.GetOwnerReferences(), Finalizers: obj.GetFinalizers(), DeletionTimestamp: obj.GetDeletionTimestamp(),
	}}
}
