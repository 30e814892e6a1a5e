// Package expand keeps a promise: whoever wants a bound claim to grow is told who
// has to do it. Volumes are grown by their drivers' resizers; nothing here can.
// It follows upstream's pkg/controller/volume/expand, of which no more is left
// since drivers are no longer built in.
package expand

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "expand-controller"
	source    = "volume_expand"
)

// Controller tells of growth. Its keys are claims.
type Controller struct {
	events  *client.Recorder
	loop    *reconcile.Loop
	claims  *informer.Informer[*corev1.PersistentVolumeClaim]
	volumes *informer.Informer[*corev1.PersistentVolume]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		events:  client.NewRecorder(cfg.Transport(component), source, ""),
		claims:  controller.Mirror(cfg.Mirrors, client.PersistentVolumeClaims),
		volumes: controller.Mirror(cfg.Mirrors, client.PersistentVolumes),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 1, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.claims.Subscribe(func(e informer.Event[*corev1.PersistentVolumeClaim]) {
		if e.Old == nil || e.New == nil {
			return
		}
		was, is := e.Old.Spec.Resources.Requests[corev1.ResourceStorage], e.New.Spec.Resources.Requests[corev1.ResourceStorage]
		if is.Cmp(was) > 0 {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "expand" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.PersistentVolumeClaims.GroupVersionResource, client.PersistentVolumes.GroupVersionResource}
}

// Writes implements reconcile.Reconciler: events alone.
func (*Controller) Writes() []reconcile.Write { return nil }

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(_ context.Context, key reconcile.Key) (time.Duration, error) {
	claim, ok := c.claims.Get(key.Namespace, key.Name)
	if !ok || claim.Status.Phase != corev1.ClaimBound {
		return 0, nil
	}
	volume, ok := c.volumes.Get("", claim.Spec.VolumeName)
	if !ok || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID {
		return 0, nil
	}
	want, have := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	if want.Cmp(have) > 0 {
		c.events.Event(claim, corev1.EventTypeNormal, "ExternalExpanding", "waiting for an external controller to expand this PVC")
	}
	return 0, nil
}
