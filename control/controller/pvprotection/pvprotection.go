// Package pvprotection keeps a promise: a volume that is bound stays, however
// often it is deleted, until its claim has let go of it. It follows upstream's
// pkg/controller/volume/pvprotection.
package pvprotection

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "pv-protection-controller"
	finalizer = "kubernetes.io/pv-protection"
)

// Controller protects volumes. Its keys are volumes.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	volumes   *informer.Informer[*corev1.PersistentVolume]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{transport: cfg.Transport(component), volumes: controller.Mirror(cfg.Mirrors, client.PersistentVolumes)}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.volumes.Subscribe(func(e informer.Event[*corev1.PersistentVolume]) {
		if e.New != nil && plan(e.New) != nothing {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "pvprotection" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.PersistentVolumes.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.PersistentVolumes.GroupVersionResource, Part: "metadata.finalizers[" + finalizer + "]"}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// step is what becomes of the finalizer.
type step int

const (
	nothing step = iota
	protect
	release
)

// plan: every volume is protected; one that is to go, and is not bound, is not.
func plan(v *corev1.PersistentVolume) step {
	has := slices.Contains(v.Finalizers, finalizer)
	switch {
	case v.DeletionTimestamp == nil && !has:
		return protect
	case v.DeletionTimestamp != nil && has && v.Status.Phase != corev1.VolumeBound:
		return release
	}
	return nothing
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	v, ok := c.volumes.Get("", key.Name)
	if !ok {
		return 0, nil
	}
	next := v.DeepCopy()
	switch plan(v) {
	case protect:
		next.Finalizers = append(next.Finalizers, finalizer)
	case release:
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == finalizer })
	default:
		return 0, nil
	}
	_, err := client.PersistentVolumes.Update(ctx, c.transport, next)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("update finalizers of volume %q: %w", v.Name, err)
	}
	return 0, nil
}
