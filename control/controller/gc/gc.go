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
	"sync"

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
	c.events = client.NewRecorder(c.transport, source, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: workers, Log: cfg.Log})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Collector) Name() string { return "gc" }

// Reads implements reconcile.Reconciler: every kind, through mirrors of its own
// that keep only metadata.
func (*Collector) Reads() []schema.GroupVersionResource { return nil }

// Writes implements reconcile.Reconciler: owner references and finalizers of
// every kind are shared with whoever sets them.
func (*Collector) Writes() []reconcile.Write { return nil }

// Everywhere implements controller.Everywhere.
func (*Collector) Everywhere() (reads bool, writes []string) {
	return true, []string{reconcile.Delete, "metadata.ownerReferences", "metadata.finalizers[orphan, foregroundDeletion]"}
}

// Run follows all kinds and collects until ctx ends. It begins once the kinds
// known at the start have been listed.
func (c *Collector) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	changed := c.follow(ctx, &running)
	for _, m := range c.monitors {
		select {
		case <-m.mirror.Synced():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	running.Go(func() { _ = c.loop.Run(ctx) }) // ends only with ctx
	for {
		select {
		case <-changed:
			changed = c.follow(ctx, &running)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// follow starts monitors of new kinds and ends those of kinds that are not
// served any more; it returns what tells of the next change.
func (c *Collector) follow(ctx context.Context, running *sync.WaitGroup) <-chan struct{} {
	kinds, changed := c.kinds.List()
	served := map[schema.GroupVersionResource]bool{}
	for _, kind := range kinds {
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
	return changed
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
