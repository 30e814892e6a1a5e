// Package daemonset keeps a promise: each node that a DaemonSet asks for has one
// of its pods. It follows upstream's pkg/controller/daemon in where pods go, how
// they change, revisions, status and events; what it decides is in decide,
// without any I/O. Pods are bound by the scheduler: their affinity names a node.
package daemonset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/history"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "daemon-set-controller" // the user
	source    = "daemonset-controller"  // how upstream signs its events
)

// Controller keeps daemon sets.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	events    *client.Recorder
	loop      *reconcile.Loop
	sets      *informer.Informer[*appsv1.DaemonSet]
	pods      *informer.Informer[*corev1.Pod]
	nodes     *informer.Informer[*corev1.Node]
	history   *history.History
	ownSets   *controller.Own[*appsv1.DaemonSet]
	ownPods   *controller.Own[*corev1.Pod]
	hands     controller.Pods

	mu     sync.Mutex
	memory map[reconcile.Key]*memory
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		log:       cfg.Log,
		sets:      controller.Mirror(cfg.Mirrors, client.DaemonSets),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		nodes:     controller.Mirror(cfg.Mirrors, client.Nodes),
		memory:    map[reconcile.Key]*memory{},
	}
	c.events = client.NewRecorder(c.transport, source, "")
	c.history = history.New(c.transport, controller.Mirror(cfg.Mirrors, client.ControllerRevisions), appsv1.DefaultDaemonSetUniqueLabelKey)
	c.ownSets, c.ownPods = controller.NewOwn(c.sets), controller.NewOwn(c.pods)
	c.hands = controller.Pods{Transport: c.transport, Events: c.events, Own: c.ownPods}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})

	controller.IndexOwners(c.pods)
	c.sets.Subscribe(func(e informer.Event[*appsv1.DaemonSet]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.pods.Subscribe(controller.EnqueueOwner[*corev1.Pod](client.DaemonSets.Kind, appsv1.GroupName, c.soon))
	c.pods.Subscribe(controller.EnqueueAdopters(c.sets, func(d *appsv1.DaemonSet) *metav1.LabelSelector { return d.Spec.Selector }, c.soon))
	c.history.Mirror.Subscribe(controller.EnqueueOwner[*history.Revision](client.DaemonSets.Kind, appsv1.GroupName, c.soon))
	c.nodes.Subscribe(c.nodeChanged)
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "daemonset" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.DaemonSets.GroupVersionResource, client.Pods.GroupVersionResource,
		client.Nodes.GroupVersionResource, client.ControllerRevisions.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	pods, revisions := client.Pods.GroupVersionResource, client.ControllerRevisions.GroupVersionResource
	return []reconcile.Write{
		{Resource: client.DaemonSets.GroupVersionResource, Part: reconcile.Status},
		{Resource: pods, Part: reconcile.Create},
		{Resource: pods, Part: reconcile.Delete},
		{Resource: pods, Part: "metadata.ownerReferences[DaemonSet]"},
		{Resource: revisions, Part: reconcile.Create},
		{Resource: revisions, Part: reconcile.Delete},
		{Resource: revisions, Part: "revision[DaemonSet]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// nodeChanged looks at the sets for which a node's change makes a difference. A
// heartbeat makes none.
func (c *Controller) nodeChanged(e informer.Event[*corev1.Node]) {
	if e.Old != nil && e.New != nil && reflect.DeepEqual(e.Old.Labels, e.New.Labels) && reflect.DeepEqual(e.Old.Spec.Taints, e.New.Spec.Taints) {
		return
	}
	for _, ds := range c.sets.List() {
		p := placeOf(ds)
		var before, after [2]bool
		if e.Old != nil {
			before[0], before[1] = p.fits(e.Old)
		}
		if e.New != nil {
			after[0], after[1] = p.fits(e.New)
		}
		if before != after || e.New == nil {
			c.soon(controller.KeyOf(ds))
		}
	}
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	ds, ok := c.sets.Get(key.Namespace, key.Name)
	if !ok {
		c.forget(key)
		return 0, nil
	}
	if !c.seen(key) {
		return controller.Unseen, nil // the event that shows it brings the key back
	}
	if reflect.DeepEqual(ds.Spec.Selector, &metav1.LabelSelector{}) {
		c.events.Event(ds, corev1.EventTypeWarning, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return 0, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil {
		c.log.Error("daemon set has an invalid selector", "key", key, "err", err) // no retry can help
		return 0, nil
	}
	if ds.DeletionTimestamp != nil {
		return 0, nil
	}
	began := time.Now()
	again, err := c.round(ctx, key, ds, selector)
	c.noteCost(key, began)
	if err != nil {
		return 0, err
	}
	if !c.seen(key) {
		again = controller.Sooner(again, controller.Unseen)
	}
	return again, nil
}

func (c *Controller) round(ctx context.Context, key reconcile.Key, ds *appsv1.DaemonSet, selector labels.Selector) (time.Duration, error) {
	pods, err := c.claim(ctx, ds, selector)
	if err != nil {
		return 0, err
	}
	v, old, err := c.revisions(ctx, key, ds, selector)
	if err != nil {
		return 0, err
	}
	v.nodes, v.now = c.nodes.List(), time.Now()
	v.wait = func(node string) time.Duration { return c.wait(key, ds, node, v.now) }
	p := decide(ds, pods, v)
	for _, node := range p.failed {
		c.noteFailure(key, ds, node, v.now)
	}
	doErr := c.do(ctx, ds, p, v.hash)
	statusErr := c.writeStatus(ctx, ds, p.status)
	var historyErr error
	if doErr == nil {
		historyErr = c.trim(ctx, key, ds, old, pods)
	}
	return p.again, errors.Join(doErr, statusErr, historyErr)
}

func (c *Controller) seen(key reconcile.Key) bool {
	return c.ownSets.Seen(key) && c.ownPods.Seen(key) && c.history.Own.Seen(key)
}

func (c *Controller) confirm(ds *appsv1.DaemonSet) func(context.Context) (client.Object, error) {
	return func(ctx context.Context) (client.Object, error) {
		return client.DaemonSets.Get(ctx, c.transport, ds.Namespace, ds.Name)
	}
}

// claim returns the pods of ds, after adopting and releasing.
func (c *Controller) claim(ctx context.Context, ds *appsv1.DaemonSet, selector labels.Selector) ([]*corev1.Pod, error) {
	claim := controller.Claim[*corev1.Pod]{
		Transport: c.transport, Resource: client.Pods, Owner: ds, OwnerKind: client.DaemonSets.GVK(), Selector: selector,
		Confirm: c.confirm(ds),
	}
	return controller.ClaimPods(ctx, &claim, c.ownPods, func(*corev1.Pod) bool { return true })
}

// revisions finds the revision of the present template, or makes it, and returns
// those of others.
func (c *Controller) revisions(ctx context.Context, key reconcile.Key, ds *appsv1.DaemonSet, selector labels.Selector) (view, []*history.Revision, error) {
	v := view{collisions: ds.Status.CollisionCount}
	collisions := int32(0)
	if v.collisions != nil {
		collisions = *v.collisions
	}
	all, err := c.history.Of(ctx, ds, client.DaemonSets.Owner(ds), selector, c.confirm(ds))
	if err != nil {
		return v, nil, err
	}
	wanted, err := c.history.Make(ds, client.DaemonSets.Owner(ds), &ds.Spec.Template, collisions)
	if err != nil {
		return v, nil, err
	}
	wanted.Revision = history.Next(all)
	var old []*history.Revision
	for _, r := range all {
		if history.Equal(r, wanted) {
			v.same = append(v.same, r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey])
		} else {
			old = append(old, r)
		}
	}
	current := history.Find(all, wanted)
	switch {
	case current == nil:
		before := collisions
		current, collisions, err = c.history.Store(ctx, key, wanted, collisions)
		if collisions != before {
			v.collisions = &collisions
		}
	case current != all[len(all)-1]: // rolled back to
		current, err = c.history.Renumber(ctx, key, current, wanted.Revision)
	}
	if err != nil {
		return v, nil, err
	}
	v.hash = current.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
	v.same = append(v.same, v.hash)
	return v, old, nil
}

// trim removes revisions beyond the history's limit that no pod is of.
func (c *Controller) trim(ctx context.Context, key reconcile.Key, ds *appsv1.DaemonSet, old []*history.Revision, pods []*corev1.Pod) error {
	hashes := map[string]bool{}
	for _, pod := range pods {
		hashes[pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
	}
	for _, r := range expendable(old, hashes, int(*ds.Spec.RevisionHistoryLimit)) {
		if err := c.history.Delete(ctx, key, r); err != nil {
			return err
		}
	}
	return nil
}

// expendable are the oldest of old, which are in order, beyond limit. Those that pods
// are of stay, but count, other than with a stateful set.
func expendable(old []*history.Revision, hashes map[string]bool, limit int) []*history.Revision {
	dead := slices.DeleteFunc(slices.Clone(old), func(r *history.Revision) bool {
		return hashes[r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]]
	})
	return dead[:min(len(dead), max(0, len(old)-limit))]
}

// do carries out p.
func (c *Controller) do(ctx context.Context, ds *appsv1.DaemonSet, p plan, hash string) error {
	for _, n := range p.news {
		c.events.Event(ds, n.eventtype, n.reason, n.message)
	}
	if len(p.create)+len(p.delete) > 0 {
		c.log.Debug("daemon set step", "key", controller.KeyOf(ds), "create", len(p.create), "delete", len(p.delete))
	}
	createErr := controller.InBatches(len(p.create), func(i int) error {
		return c.hands.Create(ctx, ds, podFor(ds, p.create[i], hash))
	})
	return errors.Join(createErr, c.hands.DeleteAll(ctx, ds, p.delete))
}

// writeStatus stores status when it says something new.
func (c *Controller) writeStatus(ctx context.Context, ds *appsv1.DaemonSet, status appsv1.DaemonSetStatus) error {
	if equality.Semantic.DeepEqual(ds.Status, status) {
		return nil
	}
	next := ds.DeepCopy()
	next.Status = status
	stored, err := client.DaemonSets.UpdateStatus(ctx, c.transport, next)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("update status of daemon set %q: %w", ds.Name, err)
	}
	c.ownSets.Wrote(controller.KeyOf(ds), stored)
	return nil
}
