// Package statefulset keeps a promise: a StatefulSet's pods are there under
// their numbers, each with its own claims, and change one after the other. It
// follows upstream's pkg/controller/statefulset in order, names, status and
// events; what it decides is in decide, without any I/O. A pod is never made
// while another of its name may live.
package statefulset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	// component is the user and the source of events, as upstream's.
	component = "statefulset-controller"
	// hashLabel is where a revision carries its hash.
	hashLabel = "controller.kubernetes.io/hash"
)

// Controller keeps stateful sets.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	events    *client.Recorder
	loop      *reconcile.Loop
	sets      *informer.Informer[*appsv1.StatefulSet]
	pods      *informer.Informer[*corev1.Pod]
	claims    *informer.Informer[*corev1.PersistentVolumeClaim]
	history   *history.History
	ownSets   *controller.Own[*appsv1.StatefulSet]
	ownPods   *controller.Own[*corev1.Pod]
	ownClaims *controller.Own[*corev1.PersistentVolumeClaim]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		log:       cfg.Log,
		sets:      controller.Mirror(cfg.Mirrors, client.StatefulSets),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		claims:    controller.Mirror(cfg.Mirrors, client.PersistentVolumeClaims),
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.history = history.New(c.transport, controller.Mirror(cfg.Mirrors, client.ControllerRevisions), hashLabel)
	c.ownSets, c.ownPods, c.ownClaims = controller.NewOwn(c.sets), controller.NewOwn(c.pods), controller.NewOwn(c.claims)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})

	controller.IndexOwners(c.pods)
	c.sets.Subscribe(func(e informer.Event[*appsv1.StatefulSet]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.pods.Subscribe(controller.EnqueueOwner[*corev1.Pod](client.StatefulSets.Kind, appsv1.GroupName, c.loop.Enqueue))
	c.pods.Subscribe(controller.EnqueueAdopters(c.sets, func(s *appsv1.StatefulSet) *metav1.LabelSelector { return s.Spec.Selector }, c.loop.Enqueue))
	c.history.Mirror.Subscribe(controller.EnqueueOwner[*history.Revision](client.StatefulSets.Kind, appsv1.GroupName, c.loop.Enqueue))
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "statefulset" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.StatefulSets.GroupVersionResource, client.Pods.GroupVersionResource,
		client.PersistentVolumeClaims.GroupVersionResource, client.ControllerRevisions.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	pods, claims, revisions := client.Pods.GroupVersionResource, client.PersistentVolumeClaims.GroupVersionResource, client.ControllerRevisions.GroupVersionResource
	return []reconcile.Write{
		{Resource: client.StatefulSets.GroupVersionResource, Part: reconcile.Status},
		{Resource: pods, Part: reconcile.Create},
		{Resource: pods, Part: reconcile.Delete},
		{Resource: pods, Part: "metadata.ownerReferences[StatefulSet]"},
		{Resource: pods, Part: fmt.Sprintf("metadata.labels[%s]", appsv1.StatefulSetPodNameLabel)},
		{Resource: claims, Part: reconcile.Create},
		{Resource: claims, Part: "metadata.ownerReferences[StatefulSet]"},
		{Resource: revisions, Part: reconcile.Create},
		{Resource: revisions, Part: reconcile.Delete},
		{Resource: revisions, Part: "revision[StatefulSet]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	set, ok := c.sets.Get(key.Namespace, key.Name)
	if !ok {
		measure.From(ctx).StatefulSetGone(key.Namespace, key.Name)
		c.forget(key)
		return 0, nil
	}
	if !c.seen(key) {
		return controller.Unseen, nil // the event that shows it brings the key back
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		c.log.Error("stateful set has an invalid selector", "key", key, "err", err) // no retry can help
		return 0, nil
	}
	revisions, err := c.history.Of(ctx, set, client.StatefulSets.Owner(set), selector, c.confirm(set))
	if err != nil {
		return 0, err
	}
	pods, err := c.claimPods(ctx, set, selector)
	if err != nil {
		return 0, err
	}
	v, all, err := c.versions(ctx, key, set, revisions)
	if err != nil {
		return 0, err
	}
	v.claims, v.now = func(pod *corev1.Pod) (settled, left, missing bool) { return c.lookAtClaims(set, pod) }, time.Now()
	p := decide(set, pods, v)
	measure.From(ctx).StatefulSet(set, p.most, p.missing)
	doErr := c.do(ctx, set, p)
	statusErr := c.writeStatus(ctx, set, p.status)
	historyErr := c.trim(ctx, key, set, all, pods, p.status)
	if err := errors.Join(doErr, statusErr, historyErr); err != nil {
		return 0, err
	}
	return c.await(key, p.again), nil
}

func (c *Controller) seen(key reconcile.Key) bool {
	return c.ownSets.Seen(key) && c.ownPods.Seen(key) && c.ownClaims.Seen(key) && c.history.Own.Seen(key)
}

func (c *Controller) await(key reconcile.Key, again time.Duration) time.Duration {
	if c.seen(key) {
		return again
	}
	return controller.Sooner(again, controller.Unseen)
}

func (c *Controller) forget(key reconcile.Key) {
	c.ownSets.Forget(key)
	c.ownPods.Forget(key)
	c.ownClaims.Forget(key)
	c.history.Own.Forget(key)
}

// confirm asks the server for the set as it is now.
func (c *Controller) confirm(set *appsv1.StatefulSet) func(context.Context) (client.Object, error) {
	return func(ctx context.Context) (client.Object, error) {
		return client.StatefulSets.Get(ctx, c.transport, set.Namespace, set.Name)
	}
}

// claimPods returns the pods of set, after adopting and releasing.
func (c *Controller) claimPods(ctx context.Context, set *appsv1.StatefulSet, selector labels.Selector) ([]*corev1.Pod, error) {
	claim := controller.Claim[*corev1.Pod]{
		Transport: c.transport, Resource: client.Pods, Owner: set, OwnerKind: client.StatefulSets.GVK(), Selector: selector,
		Member:  func(pod *corev1.Pod) bool { return member(set, pod) },
		Confirm: c.confirm(set),
	}
	return controller.ClaimPods(ctx, &claim, c.ownPods, func(*corev1.Pod) bool { return true })
}

// versions finds the revisions to update from and to, and makes the latter if
// there is none of the present template. It returns all, too. A set that is being
// deleted makes and changes none: the collector takes them from it, and would again.
func (c *Controller) versions(ctx context.Context, key reconcile.Key, set *appsv1.StatefulSet, revisions []*history.Revision) (view, []*history.Revision, error) {
	var v view
	if set.Status.CollisionCount != nil {
		v.collisions = *set.Status.CollisionCount
	}
	wanted, err := c.history.Make(set, client.StatefulSets.Owner(set), &set.Spec.Template, v.collisions)
	if err != nil {
		return v, nil, err
	}
	wanted.Revision = history.Next(revisions)
	update := history.Find(revisions, wanted)
	switch {
	case set.DeletionTimestamp != nil:
		if update == nil {
			update = wanted
			update.Name = cmp.Or(set.Status.UpdateRevision, wanted.Name)
		}
	case update == nil:
		update, v.collisions, err = c.history.Store(ctx, key, wanted, v.collisions)
		revisions = append(revisions, update)
	case update != revisions[len(revisions)-1]: // rolled back to
		update, err = c.history.Renumber(ctx, key, update, wanted.Revision)
	}
	if err != nil {
		return v, nil, err
	}
	v.update = version{update.Name, &set.Spec.Template}
	v.current = v.update
	for _, r := range revisions {
		if r.Name == set.Status.CurrentRevision && r.Name != update.Name {
			template, err := history.Template(r)
			if err != nil {
				return v, nil, err
			}
			v.current = version{r.Name, template}
		}
	}
	return v, revisions, nil
}

// trim removes revisions beyond the history's limit that nothing lives by.
func (c *Controller) trim(ctx context.Context, key reconcile.Key, set *appsv1.StatefulSet, revisions []*history.Revision, pods []*corev1.Pod, status appsv1.StatefulSetStatus) error {
	live := map[string]bool{status.CurrentRevision: true, status.UpdateRevision: true, set.Status.CurrentRevision: true}
	for _, pod := range pods {
		live[revisionOf(pod)] = true
	}
	for _, r := range history.Expendable(revisions, live, int(*set.Spec.RevisionHistoryLimit)) {
		if err := c.history.Delete(ctx, key, r); err != nil {
			return err
		}
	}
	return nil
}

// writeStatus stores status when it says something new.
func (c *Controller) writeStatus(ctx context.Context, set *appsv1.StatefulSet, status appsv1.StatefulSetStatus) error {
	if equality.Semantic.DeepEqual(set.Status, status) {
		return nil
	}
	next := set.DeepCopy()
	next.Status = status
	stored, err := client.StatefulSets.UpdateStatus(ctx, c.transport, next)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("update status of stateful set %q: %w", set.Name, err)
	}
	c.ownSets.Wrote(controller.KeyOf(set), stored)
	return nil
}
