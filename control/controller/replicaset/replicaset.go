// Package replicaset keeps a promise: as many pods as a ReplicaSet asks for.
// It follows upstream's pkg/controller/replicaset in what it creates, which pods
// it removes first, the events and the status.
package replicaset

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	// component is the user and the source of events, as upstream's.
	component = "replicaset-controller"
	// unseen is how long to wait for one's own writes to show up in the mirror
	// when no event brings the key back: a lost event costs at most this.
	unseen = 30 * time.Second
)

// Controller keeps the number of pods of every ReplicaSet.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	events    *client.Recorder
	loop      *reconcile.Loop
	sets      *informer.Informer[*appsv1.ReplicaSet]
	pods      *informer.Informer[*corev1.Pod]
	own       *controller.Own[*corev1.Pod]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		log:       cfg.Log,
		sets:      controller.Mirror(cfg.Mirrors, client.ReplicaSets),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.own = controller.NewOwn(c.pods)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})

	controller.IndexOwners(c.sets)
	controller.IndexOwners(c.pods)
	c.sets.Subscribe(func(e informer.Event[*appsv1.ReplicaSet]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.pods.Subscribe(controller.EnqueueOwner[*corev1.Pod](client.ReplicaSets.Kind, appsv1.GroupName, c.loop.Enqueue))
	c.pods.Subscribe(c.enqueueAdopters)
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "replicaset" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.ReplicaSets.GroupVersionResource, client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.ReplicaSets.GroupVersionResource, Part: reconcile.Status},
		{Resource: client.Pods.GroupVersionResource, Part: reconcile.Create},
		{Resource: client.Pods.GroupVersionResource, Part: reconcile.Delete},
		{Resource: client.Pods.GroupVersionResource, Part: "metadata.ownerReferences[ReplicaSet]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// enqueueAdopters wakes the sets that might adopt a pod that nobody controls.
func (c *Controller) enqueueAdopters(e informer.Event[*corev1.Pod]) {
	pod := e.New
	if pod == nil || pod.DeletionTimestamp != nil || metav1.GetControllerOfNoCopy(pod) != nil || len(pod.Labels) == 0 {
		return
	}
	for _, rs := range c.sets.List() {
		if rs.Namespace != pod.Namespace {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			c.loop.Enqueue(controller.KeyOf(rs))
		}
	}
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	rs, ok := c.sets.Get(key.Namespace, key.Name)
	if !ok {
		c.own.Forget(key)
		return 0, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		c.log.Error("replica set has an invalid selector", "key", key, "err", err) // no retry can help
		return 0, nil
	}
	caughtUp := c.own.Seen(key) // before the pods are read: what it vouches for is in them
	active, terminating, err := c.claim(ctx, rs, selector)
	if err != nil {
		return 0, err
	}
	var doErr error
	if caughtUp && rs.DeletionTimestamp == nil {
		p := decide(rs, active, func() []*corev1.Pod { return c.related(rs) }, time.Now())
		doErr = c.do(ctx, key, rs, p)
	}
	now := time.Now()
	status := statusOf(rs, active, terminating, doErr, now)
	if err := c.writeStatus(ctx, rs, status); err != nil {
		return 0, errors.Join(doErr, err)
	}
	if doErr != nil {
		return 0, doErr
	}
	again := nextAvailable(rs, active, now)
	if !c.own.Seen(key) && (again == 0 || again > unseen) {
		again = unseen
	}
	return again, nil
}

// claim returns the pods of rs that count and those that are on their way out.
func (c *Controller) claim(ctx context.Context, rs *appsv1.ReplicaSet, selector labels.Selector) (active, terminating []*corev1.Pod, err error) {
	claim := controller.Claim[*corev1.Pod]{
		Transport: c.transport, Resource: client.Pods, Owner: rs, OwnerKind: client.ReplicaSets.GVK(), Selector: selector,
		Confirm: func(ctx context.Context) (client.Object, error) {
			return client.ReplicaSets.Get(ctx, c.transport, rs.Namespace, rs.Name)
		},
	}
	var candidates []*corev1.Pod
	for _, pod := range append(controller.Owned(c.pods, rs), controller.Orphans(c.pods, rs.Namespace)...) {
		switch {
		case controller.Active(pod):
			candidates = append(candidates, pod)
		case pod.DeletionTimestamp != nil && !controller.Ended(pod) && claim.Decide(pod) == controller.Keep:
			terminating = append(terminating, pod)
		}
	}
	active, err = claim.Sort(ctx, candidates)
	return active, terminating, err
}

// related returns the pods of all sets with the same controller: those of the
// other revisions of a deployment.
func (c *Controller) related(rs *appsv1.ReplicaSet) []*corev1.Pod {
	sets := []*appsv1.ReplicaSet{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		sets = controller.Owned(c.sets, &metav1.ObjectMeta{UID: ref.UID})
	}
	var pods []*corev1.Pod
	for _, set := range sets {
		pods = append(pods, controller.Owned(c.pods, set)...)
	}
	return pods
}

// writeStatus stores status when it says something new.
func (c *Controller) writeStatus(ctx context.Context, rs *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) error {
	if sameStatus(rs.Status, status) {
		return nil
	}
	next := rs.DeepCopy()
	next.Status = status
	if _, err := client.ReplicaSets.UpdateStatus(ctx, c.transport, next); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of replica set %q: %w", rs.Name, err)
	}
	return nil
}
