// Package resourcequota keeps a promise: the status of every quota says what its
// namespace really uses. What is created is added there by the API server before
// it is stored; this controller counts what was there before the quota, and takes
// off what goes.
//
// Two rules make that exact beside requests that are under way, which have been
// counted but are not stored yet. What goes is subtracted, as its watch tells it,
// from whatever the quota says then; the namespace is not counted anew for it.
// And where a count finds less than the quota says, it is believed only once no
// request has been counted for so long that none can still be under way.
//
// A new leader and an old one that does not know yet may both see the same object
// go. So the quota says, in the annotation Through, up to which revision of each
// kind what has gone is taken off.
//
// It follows upstream's pkg/controller/resourcequota in what is written.
package resourcequota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/kinds/quota"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component   = "resourcequota-controller"
	byNamespace = "namespace"
	// settle is when a quota that was counted for the first time is counted again:
	// what was admitted before the quota was known may have been stored after.
	settle = 2 * time.Second
	// quiet is for how long nothing must have been added to a quota before less
	// may be believed: longer than any request lasts.
	quiet = 45 * time.Second
	// resync is how often everything is counted though nothing happened: for pods
	// that are overdue on a lost node, and for what nobody told. Upstream's.
	resync = 5 * time.Minute
	// behindRetry is when a count is tried again for which the mirrors are behind.
	behindRetry = time.Second
	// maxGone bounds what is remembered of what has gone while the quota can't be
	// written.
	maxGone = 10_000
)

// Controller counts. Its keys are quotas.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	loop      *reconcile.Loop
	quotas    *informer.Informer[*corev1.ResourceQuota]
	kinds     *controller.Kinds
	// wanted tells Run that other kinds must be followed.
	wanted chan struct{}

	mu       sync.Mutex // guards what follows
	monitors map[schema.GroupResource]*monitor
	books    map[reconcile.Key]*book
}

// New makes the controller; kinds are those that a quota may cap.
func New(cfg controller.Config, kinds *controller.Kinds) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if kinds == nil {
		return nil, errors.New("resource quota controller: no kinds")
	}
	c := &Controller{
		transport: cfg.Transport(component),
		log:       cfg.Log,
		quotas:    controller.Mirror(cfg.Mirrors, client.ResourceQuotas),
		kinds:     kinds,
		wanted:    make(chan struct{}, 1),
		monitors:  map[schema.GroupResource]*monitor{},
		books:     map[reconcile.Key]*book{},
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.quotas.AddIndex(byNamespace, func(q *corev1.ResourceQuota) []string { return []string{q.Namespace} })
	c.quotas.Subscribe(c.quotaChanged)
	return c, nil
}

// Everywhere implements controller.Everywhere: it counts whatever a quota caps.
func (*Controller) Everywhere() (reads bool, writes []string) { return true, nil }

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "resourcequota" }

// Reads implements reconcile.Reconciler: besides quotas, the kinds that some
// quota caps, through mirrors of its own.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.ResourceQuotas.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.ResourceQuotas.GroupVersionResource, Part: reconcile.Status}}
}

// quotaChanged notes what requests have added, and looks at a quota whose limits
// differ from those that are enforced.
func (c *Controller) quotaChanged(e informer.Event[*corev1.ResourceQuota]) {
	key := controller.KeyOf(e.Object())
	c.mu.Lock()
	b := c.book(key)
	switch {
	case e.New == nil:
		delete(c.books, key)
	case e.Old == nil || e.Old.UID != e.New.UID:
		*b = book{uid: e.New.UID, risen: time.Now()}
	case len(quota.Rise(e.Old.Status.Used, e.New.Status.Used)) > 0:
		b.risen = time.Now()
	}
	c.mu.Unlock()
	if e.Old == nil || e.New == nil || !quota.Equal(e.Old.Spec.Hard, e.New.Spec.Hard) || !quota.Equal(e.New.Spec.Hard, e.New.Status.Hard) {
		c.poke()
		c.loop.Enqueue(key)
		return
	}
	if len(quota.Rise(e.Old.Status.Used, e.New.Status.Used)) > 0 {
		c.loop.EnqueueAfter(key, quiet)
	}
}

// poke has Run look which kinds must be followed.
func (c *Controller) poke() {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { _ = c.loop.Run(ctx) }) // ends only with ctx
	for {
		_, changed := c.kinds.List()
		c.follow(ctx, &running)
		select {
		case <-changed:
		case <-c.wanted:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	q, ok := c.quotas.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	p, ready := c.plan(key, q, time.Now())
	if !ready {
		return 0, nil // it is looked at again when its kinds have been listed
	}
	if !p.write {
		return p.again, nil
	}
	next := q.DeepCopy()
	next.Status = corev1.ResourceQuotaStatus{Hard: p.hard, Used: p.used}
	p.through.on(next)
	_, err := client.ResourceQuotas.UpdateStatus(ctx, c.transport, next)
	if err == nil {
		c.written(key, q, p)
		return p.again, nil
	}
	c.undo(key, q, p)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, fmt.Errorf("update status of resource quota %q: %w", key, err)
}
