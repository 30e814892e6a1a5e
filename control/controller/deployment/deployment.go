// Package deployment keeps a promise: the pods of a Deployment become those of
// its present template, at the pace that its strategy allows, and one can go
// back. It follows upstream's pkg/controller/deployment in sizes, annotations,
// events and status; what it decides is in decide, without any I/O.
package deployment

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
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
	"github.com/sampan-dev/sampan/reconcile"
)

// component is the user and the source of events, as upstream's.
const component = "deployment-controller"

// Controller rolls deployments out.
type Controller struct {
	transport   client.Transport
	log         *slog.Logger
	events      *client.Recorder
	loop        *reconcile.Loop
	deployments *informer.Informer[*appsv1.Deployment]
	sets        *informer.Informer[*appsv1.ReplicaSet]
	pods        *informer.Informer[*corev1.Pod]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport:   cfg.Transport(component),
		log:         cfg.Log,
		deployments: controller.Mirror(cfg.Mirrors, client.Deployments),
		sets:        controller.Mirror(cfg.Mirrors, client.ReplicaSets),
		pods:        controller.Mirror(cfg.Mirrors, client.Pods),
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	controller.IndexOwners(c.sets)
	controller.IndexOwners(c.pods)
	c.deployments.Subscribe(func(e informer.Event[*appsv1.Deployment]) { c.loop.Enqueue(controller.KeyOf(e.Object())) })
	c.sets.Subscribe(controller.EnqueueOwner[*appsv1.ReplicaSet](client.Deployments.Kind, appsv1.GroupName, c.loop.Enqueue))
	c.sets.Subscribe(c.enqueueAdopters)
	c.pods.Subscribe(c.enqueueRecreate)
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "deployment" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Deployments.GroupVersionResource, client.ReplicaSets.GroupVersionResource, client.Pods.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.Deployments.GroupVersionResource, Part: reconcile.Status},
		{Resource: client.Deployments.GroupVersionResource, Part: "metadata.annotations[revision]"},
		{Resource: client.Deployments.GroupVersionResource, Part: "spec.template"}, // of a rollback
		{Resource: client.ReplicaSets.GroupVersionResource, Part: reconcile.Create},
		{Resource: client.ReplicaSets.GroupVersionResource, Part: reconcile.Delete},
		{Resource: client.ReplicaSets.GroupVersionResource, Part: reconcile.Spec},
		{Resource: client.ReplicaSets.GroupVersionResource, Part: reconcile.Metadata},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// enqueueAdopters wakes the deployments that might adopt a set without owner.
func (c *Controller) enqueueAdopters(e informer.Event[*appsv1.ReplicaSet]) {
	rs := e.New
	if rs == nil || rs.DeletionTimestamp != nil || metav1.GetControllerOfNoCopy(rs) != nil || len(rs.Labels) == 0 {
		return
	}
	for _, d := range c.deployments.List() {
		if d.Namespace != rs.Namespace {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(rs.Labels)) {
			c.loop.Enqueue(controller.KeyOf(d))
		}
	}
}

// enqueueRecreate wakes a deployment that waits for its old pods to go.
func (c *Controller) enqueueRecreate(e informer.Event[*corev1.Pod]) {
	if e.New != nil && !(controller.Ended(e.New) && e.Old != nil && !controller.Ended(e.Old)) {
		return
	}
	owner := metav1.GetControllerOfNoCopy(e.Object())
	if owner == nil || owner.Kind != client.ReplicaSets.Kind {
		return
	}
	rs, ok := c.sets.Get(e.Object().Namespace, owner.Name)
	if !ok || rs.UID != owner.UID {
		return
	}
	owner = metav1.GetControllerOfNoCopy(rs)
	if owner == nil || owner.Kind != client.Deployments.Kind {
		return
	}
	d, ok := c.deployments.Get(rs.Namespace, owner.Name)
	if ok && d.UID == owner.UID && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		c.loop.Enqueue(controller.KeyOf(d))
	}
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	d, ok := c.deployments.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	if reflect.DeepEqual(d.Spec.Selector, &metav1.LabelSelector{}) {
		c.events.Event(d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		status := d.Status
		status.ObservedGeneration = d.Generation
		return 0, c.writeStatus(ctx, d, status)
	}
	sets, err := c.claim(ctx, d)
	if err != nil {
		return 0, err
	}
	p := decide(d, sets, func(fresh *appsv1.ReplicaSet) bool { return c.oldPodsRemain(sets, fresh) }, time.Now())
	return p.again, c.do(ctx, d, p)
}

// claim returns the deployment's own sets, after adopting and releasing.
func (c *Controller) claim(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("deployment %q has an invalid selector: %w", d.Name, err)
	}
	claim := controller.Claim[*appsv1.ReplicaSet]{
		Transport: c.transport, Resource: client.ReplicaSets, Owner: d, OwnerKind: client.Deployments.GVK(), Selector: selector,
		Confirm: func(ctx context.Context) (client.Object, error) {
			return client.Deployments.Get(ctx, c.transport, d.Namespace, d.Name)
		},
	}
	return claim.Sort(ctx, append(controller.Owned(c.sets, d), controller.Orphans(c.sets, d.Namespace)...))
}

// oldPodsRemain says whether a pod of another set than fresh has not ended.
func (c *Controller) oldPodsRemain(sets []*appsv1.ReplicaSet, fresh *appsv1.ReplicaSet) bool {
	for _, rs := range sets {
		if fresh != nil && rs.UID == fresh.UID {
			continue
		}
		for _, pod := range controller.Owned(c.pods, rs) {
			if !controller.Ended(pod) {
				return true
			}
		}
	}
	return false
}

// writeStatus stores status when it says something new.
func (c *Controller) writeStatus(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus) error {
	next := d.DeepCopy()
	next.Status = status
	_, err := c.write(ctx, d, next)
	return err
}

// write stores next's status and annotations when they are others than d's, and returns
// what is stored then; d may be older than what is, then the server refuses. As
// upstream's, the annotations go with the status: whoever writes them with the whole
// object raises its generation.
func (c *Controller) write(ctx context.Context, d, next *appsv1.Deployment) (*appsv1.Deployment, error) {
	if equality.Semantic.DeepEqual(d.Status, next.Status) && equality.Semantic.DeepEqual(d.Annotations, next.Annotations) {
		return d, nil
	}
	stored, err := client.Deployments.UpdateStatus(ctx, c.transport, next)
	switch {
	case apierrors.IsNotFound(err):
		return d, nil
	case err != nil:
		return nil, fmt.Errorf("update status of deployment %q: %w", d.Name, err)
	}
	return stored, nil
}
