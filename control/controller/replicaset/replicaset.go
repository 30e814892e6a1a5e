// Package replicaset keeps a promise: as many pods as a ReplicaSet asks for, or
// another kind that has a Row. It follows upstream's pkg/controller/replicaset
// in what it creates, which pods it removes first, the events and the status.
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

// Controller keeps the number of pods of every object of one kind.
type Controller[T client.Object] struct {
	row       Row[T]
	transport client.Transport
	log       *slog.Logger
	loop      *reconcile.Loop
	sets      *informer.Informer[T]
	pods      *informer.Informer[*corev1.Pod]
	own       *controller.Own[*corev1.Pod]
	hands     controller.Pods
}

// New makes the controller of ReplicaSets.
func New(cfg controller.Config) (*Controller[*appsv1.ReplicaSet], error) {
	return For(cfg, ReplicaSets())
}

// For makes the controller of a row.
func For[T client.Object](cfg controller.Config, row Row[T]) (*Controller[T], error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller[T]{
		row:       row,
		transport: cfg.Transport(row.Component),
		log:       cfg.Log,
		sets:      controller.Mirror(cfg.Mirrors, row.Resource),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
	}
	c.own = controller.NewOwn(c.pods)
	c.hands = controller.Pods{Transport: c.transport, Events: client.NewRecorder(c.transport, row.Component, ""), Own: c.own}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})

	controller.IndexOwners(c.sets)
	controller.IndexOwners(c.pods)
	c.sets.Subscribe(func(e informer.Event[T]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.pods.Subscribe(controller.EnqueueOwner[*corev1.Pod](row.Resource.Kind, row.Resource.Group, c.loop.Enqueue))
	c.pods.Subscribe(controller.EnqueueAdopters(c.sets, func(obj T) *metav1.LabelSelector { return row.View(obj).Spec.Selector }, c.loop.Enqueue))
	return c, nil
}

// Name implements reconcile.Reconciler.
func (c *Controller[T]) Name() string { return c.row.Name }

// Reads implements reconcile.Reconciler.
func (c *Controller[T]) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{c.row.Resource.GroupVersionResource, client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (c *Controller[T]) Writes() []reconcile.Write {
	pods := client.Pods.GroupVersionResource
	return []reconcile.Write{
		{Resource: c.row.Resource.GroupVersionResource, Part: reconcile.Status},
		{Resource: pods, Part: reconcile.Create},
		{Resource: pods, Part: reconcile.Delete},
		{Resource: pods, Part: fmt.Sprintf("metadata.ownerReferences[%s]", c.row.Resource.Kind)},
	}
}

// Run implements controller.Controller.
func (c *Controller[T]) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller[T]) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	obj, ok := c.sets.Get(key.Namespace, key.Name)
	if !ok {
		c.own.Forget(key)
		return 0, nil
	}
	rs := c.row.View(obj)
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil {
		c.log.Error("set has an invalid selector", "kind", c.row.Resource.Kind, "key", key, "err", err) // no retry can help
		return 0, nil
	}
	caughtUp := c.own.Seen(key) // before the pods are read: what it vouches for is in them
	active, terminating, err := c.claim(ctx, obj, selector)
	if err != nil {
		return 0, err
	}
	var doErr error
	if caughtUp && rs.DeletionTimestamp == nil {
		p := decide(rs, active, func() []*corev1.Pod { return c.related(obj) }, time.Now())
		doErr = c.do(ctx, obj, p)
	}
	now := time.Now()
	status := statusOf(rs, active, terminating, doErr, now)
	if !c.row.Terminating {
		status.TerminatingReplicas = nil
	}
	if err := c.writeStatus(ctx, obj, status); err != nil {
		return 0, errors.Join(doErr, err)
	}
	if doErr != nil {
		return 0, doErr
	}
	return c.own.Await(key, controller.NextAvailable(active, rs.Spec.MinReadySeconds, now)), nil
}

// claim returns the pods of obj that count and those that are on their way out.
func (c *Controller[T]) claim(ctx context.Context, obj T, selector labels.Selector) (active, terminating []*corev1.Pod, err error) {
	claim := controller.Claim[*corev1.Pod]{
		Transport: c.transport, Resource: client.Pods, Owner: obj, OwnerKind: c.row.Resource.GVK(), Selector: selector,
		Confirm: func(ctx context.Context) (client.Object, error) {
			return c.row.Resource.Get(ctx, c.transport, obj.GetNamespace(), obj.GetName())
		},
	}
	active, err = controller.ClaimPods(ctx, &claim, c.own, func(pod *corev1.Pod) bool {
		if controller.Active(pod) {
			return true
		}
		if pod.DeletionTimestamp != nil && !controller.Ended(pod) && claim.Decide(pod) == controller.Keep {
			terminating = append(terminating, pod)
		}
		return false
	})
	return active, terminating, err
}

// related returns the pods of all sets with the same controller: those of the
// other revisions of a deployment.
func (c *Controller[T]) related(obj T) []*corev1.Pod {
	sets := []T{obj}
	if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
		sets = controller.Owned(c.sets, &metav1.ObjectMeta{UID: ref.UID})
	}
	var pods []*corev1.Pod
	for _, set := range sets {
		pods = append(pods, controller.Owned(c.pods, set)...)
	}
	return pods
}

// do carries out p.
func (c *Controller[T]) do(ctx context.Context, obj T, p plan) error {
	if p.create > 0 || len(p.delete) > 0 {
		c.log.Debug("set off its mark", "kind", c.row.Resource.Kind, "key", controller.KeyOf(obj), "reason", p.reason)
	}
	template, ref := &c.row.View(obj).Spec.Template, c.row.Resource.Owner(obj)
	err := controller.InBatches(p.create, func(int) error {
		return c.hands.Create(ctx, obj, controller.PodOf(template, obj, ref))
	})
	if err != nil {
		return err
	}
	return c.hands.DeleteAll(ctx, obj, p.delete)
}

// writeStatus stores status when it says something new.
func (c *Controller[T]) writeStatus(ctx context.Context, obj T, status appsv1.ReplicaSetStatus) error {
	if sameStatus(c.row.View(obj).Status, status) {
		return nil
	}
	next := c.row.WithStatus(obj, status)
	if _, err := c.row.Resource.UpdateStatus(ctx, c.transport, next); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of %s %q: %w", c.row.Resource.Kind, obj.GetName(), err)
	}
	return nil
}
