package resourceclaim

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

// Releaser takes claims back from pods that have ended: what nobody uses is
// deallocated, and what was made for one pod goes. Its keys are claims.
type Releaser struct {
	transport client.Transport
	loop      *reconcile.Loop
	pods      *informer.Informer[*corev1.Pod]
	claims    *informer.Informer[*claim]
}

// NewReleaser makes the controller.
func NewReleaser(cfg controller.Config) (*Releaser, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Releaser{
		transport: cfg.Transport(component),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		claims:    controller.Mirror(cfg.Mirrors, client.ResourceClaims),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.claims.Subscribe(func(e informer.Event[*claim]) {
		if e.New != nil {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	c.claims.AddIndex(byPod, podsOf)
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		switch {
		case e.New == nil, e.Old != nil && e.Old.UID != e.New.UID:
			c.enqueue(e.Old)
		case done(e.New):
			c.enqueue(e.New)
		}
	})
	return c, nil
}

// byPod finds the claims of a pod by its uid: that it may use, and that were made for it.
const byPod = "pod"

func podsOf(have *claim) (uids []string) {
	for _, u := range have.Status.ReservedFor {
		uids = append(uids, string(u.UID))
	}
	if ref := metav1.GetControllerOfNoCopy(have); ref != nil && !slices.Contains(uids, string(ref.UID)) {
		uids = append(uids, string(ref.UID))
	}
	return uids
}

// enqueue looks at the claims of a pod that has ended: those that it names, and those
// that know it. Of two leaders each may have made one for it, and the pod names the
// later.
func (c *Releaser) enqueue(pod *corev1.Pod) {
	for i := range pod.Spec.ResourceClaims {
		if name := nameOf(pod, &pod.Spec.ResourceClaims[i]); name != "" {
			c.loop.Enqueue(reconcile.Key{Namespace: pod.Namespace, Name: name})
		}
	}
	for _, have := range c.claims.ByIndex(byPod, string(pod.UID)) {
		c.loop.Enqueue(controller.KeyOf(have))
	}
}

// Name implements reconcile.Reconciler.
func (*Releaser) Name() string { return "resourceclaim-releaser" }

// Reads implements reconcile.Reconciler.
func (*Releaser) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Pods.GroupVersionResource, client.ResourceClaims.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Releaser) Writes() []reconcile.Write {
	claims := client.ResourceClaims.GroupVersionResource
	return []reconcile.Write{
		{Resource: claims, Part: "status.reservedFor[pods that have ended]"}, {Resource: claims, Part: "status.allocation back to none"},
		{Resource: claims, Part: "metadata.finalizers[" + resourcev1.Finalizer + "]"}, {Resource: claims, Part: reconcile.Delete},
	}
}

// Run implements controller.Controller.
func (c *Releaser) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Releaser) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	have, ok := c.claims.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	var users []resourcev1.ResourceClaimConsumerReference
	for _, u := range have.Status.ReservedFor {
		uses, err := c.uses(ctx, have.Namespace, u)
		if err != nil {
			return 0, err
		}
		if uses {
			users = append(users, u)
		}
	}
	next, changed := released(have, users)
	if changed {
		made, err := client.ResourceClaims.UpdateStatus(ctx, c.transport, next)
		if err != nil {
			return 0, gone(fmt.Errorf("release claim %q: %w", key, err))
		}
		have = made
	}
	if len(users) > 0 {
		return 0, nil
	}
	if i := slices.Index(have.Finalizers, resourcev1.Finalizer); i >= 0 && have.Status.Allocation == nil && (changed || have.DeletionTimestamp != nil) {
		next := have.DeepCopy()
		next.Finalizers = slices.Delete(next.Finalizers, i, i+1)
		if _, err := client.ResourceClaims.Update(ctx, c.transport, next); err != nil {
			return 0, gone(fmt.Errorf("let claim %q go: %w", key, err))
		}
	}
	return 0, c.remove(ctx, have)
}

// released is pure: the claim without the users that have ended; allocated no more
// when none is left, if it was the scheduler in this cluster that allocated it.
func released(have *claim, users []resourcev1.ResourceClaimConsumerReference) (next *claim, changed bool) {
	next = have.DeepCopy()
	ours := slices.Contains(have.Finalizers, resourcev1.Finalizer)
	fewer := len(users) < len(have.Status.ReservedFor)
	next.Status.ReservedFor = users
	if len(users) == 0 && ours && have.Status.Allocation != nil && (fewer || have.DeletionTimestamp != nil) {
		next.Status.Allocation = nil
		next.Status.Devices = nil
		return next, true
	}
	return next, fewer
}

// uses says whether a reservation is still good. The server is asked before a pod
// that the mirror lacks counts as gone.
func (c *Releaser) uses(ctx context.Context, namespace string, u resourcev1.ResourceClaimConsumerReference) (bool, error) {
	if u.APIGroup != "" || u.Resource != "pods" {
		return true, nil // not ours to judge
	}
	pod, ok := c.pods.Get(namespace, u.Name)
	if !ok {
		live, err := client.Pods.Get(ctx, c.transport, namespace, u.Name)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("get pod %q: %w", namespace+"/"+u.Name, err)
		}
		pod = live
	}
	return pod.UID == u.UID && !done(pod), nil
}

// remove deletes a claim that was made for a pod which has ended: other pods may
// need its devices long before that pod is deleted.
func (c *Releaser) remove(ctx context.Context, have *claim) error {
	ref := metav1.GetControllerOfNoCopy(have)
	if ref == nil || ref.Kind != client.Pods.Kind || ref.APIVersion != "v1" || have.DeletionTimestamp != nil {
		return nil
	}
	pod, ok := c.pods.Get(have.Namespace, ref.Name)
	if !ok || pod.UID == ref.UID && !done(pod) {
		return nil // of a pod that is gone, the collector takes it
	}
	err := client.ResourceClaims.Delete(ctx, c.transport, have.Namespace, have.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}})
	if err != nil {
		return gone(fmt.Errorf("delete unused generated claim %s/%s: %w", have.Namespace, have.Name, err))
	}
	return nil
}

// gone forgives that something is there no more.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
