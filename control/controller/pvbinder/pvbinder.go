// Package pvbinder keeps a promise: a claim gets a volume that satisfies it, and
// both say so; a volume whose claim has gone says that, and its reclaim policy is
// followed. It follows upstream's pkg/controller/volume/persistentvolume: rules,
// order of writes, events and words, but waits for events where that looks at
// everything every fifteen seconds.
//
// The two objects point at each other. The volume is written first, so that a
// crash between the two leaves a volume that waits for its claim and never a claim
// that points at another's volume. Volumes are made and removed by provisioners
// outside: this package only asks for them.
package pvbinder

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "persistent-volume-binder"
	source    = "persistentvolume-controller"
	byClaim   = "binder's claim"   // index of pods, "namespace/name"
	byWaiting = "binder's waiting" // index of claims that are not bound yet
)

type (
	claim  = corev1.PersistentVolumeClaim
	volume = corev1.PersistentVolume
)

// Controller binds claims and volumes. A key with a namespace is a claim, one
// without is a volume.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	events    *client.Recorder
	loop      *reconcile.Loop
	claims    *informer.Informer[*claim]
	volumes   *informer.Informer[*volume]
	classes   *informer.Informer[*storagev1.StorageClass]
	pods      *informer.Informer[*corev1.Pod]
	ownClaims *controller.Own[*claim]
	ownPVs    *controller.Own[*volume]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component), log: cfg.Log,
		claims:  controller.Mirror(cfg.Mirrors, client.PersistentVolumeClaims),
		volumes: controller.Mirror(cfg.Mirrors, client.PersistentVolumes),
		classes: controller.Mirror(cfg.Mirrors, client.StorageClasses),
		pods:    controller.Mirror(cfg.Mirrors, client.Pods),
	}
	c.events = client.NewRecorder(c.transport, source, "")
	c.ownClaims, c.ownPVs = controller.NewOwn(c.claims), controller.NewOwn(c.volumes)
	// One worker: two claims must not choose the same volume at the same time.
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 1, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.claims.AddIndex(byWaiting, func(c *claim) []string {
		if !completed(c) {
			return []string{""}
		}
		return nil
	})
	c.pods.AddIndex(byClaim, claimsOf)
	c.subscribe()
	return c, nil
}

func (c *Controller) subscribe() {
	c.claims.Subscribe(func(e informer.Event[*claim]) {
		if e.New != nil {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
		if v := e.Object().Spec.VolumeName; v != "" {
			c.loop.Enqueue(reconcile.Key{Name: v})
		}
	})
	c.volumes.Subscribe(func(e informer.Event[*volume]) {
		if e.New != nil {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
		if ref := e.Object().Spec.ClaimRef; ref != nil {
			c.loop.Enqueue(reconcile.Key{Namespace: ref.Namespace, Name: ref.Name})
		}
		for _, waiting := range c.claims.ByIndex(byWaiting, "") {
			if may(waiting, e.Object()) {
				c.loop.Enqueue(controller.KeyOf(waiting))
			}
		}
	})
	c.classes.Subscribe(func(informer.Event[*storagev1.StorageClass]) {
		for _, waiting := range c.claims.ByIndex(byWaiting, "") {
			c.loop.Enqueue(controller.KeyOf(waiting))
		}
	})
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.Old != nil || e.New == nil || e.New.Spec.NodeName != "" {
			return // a new consumer is told of; nothing else of pods matters here
		}
		for _, key := range claimsOf(e.New) {
			if used, ok := c.claims.Get(e.New.Namespace, key[len(e.New.Namespace)+1:]); ok && !completed(used) {
				c.loop.Enqueue(controller.KeyOf(used))
			}
		}
	})
}

func claimsOf(p *corev1.Pod) []string {
	var keys []string
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			keys = append(keys, p.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			keys = append(keys, p.Namespace+"/"+p.Name+"-"+v.Name)
		}
	}
	return keys
}

// may says whether a volume's change could matter to a claim that waits.
func may(c *claim, v *volume) bool {
	return c.Spec.VolumeName == v.Name || c.Spec.VolumeName == "" && v.Status.Phase == corev1.VolumeAvailable && classOfVolume(v) == classOf(c)
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "pvbinder" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.PersistentVolumeClaims.GroupVersionResource, client.PersistentVolumes.GroupVersionResource,
		client.StorageClasses.GroupVersionResource, client.Pods.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	claims, volumes := client.PersistentVolumeClaims.GroupVersionResource, client.PersistentVolumes.GroupVersionResource
	return []reconcile.Write{
		{Resource: claims, Part: "spec.volumeName"}, {Resource: claims, Part: "spec.storageClassName"},
		{Resource: claims, Part: "status.phase"}, {Resource: claims, Part: "status.capacity at binding"},
		{Resource: volumes, Part: "spec.claimRef"}, {Resource: volumes, Part: "status.phase"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	if !c.ownClaims.Seen(key) || !c.ownPVs.Seen(key) {
		return controller.Unseen, nil // the event brings the key back
	}
	if key.Namespace == "" {
		v, ok := c.volumes.Get("", key.Name)
		if !ok {
			return 0, nil
		}
		return 0, c.syncVolume(ctx, v)
	}
	pvc, ok := c.claims.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	if completed(pvc) {
		return 0, c.syncBound(ctx, pvc)
	}
	return 0, c.syncWaiting(ctx, pvc)
}

// getClaim asks the mirror for a volume's claim, and the server when the mirror
// does not know it or knows another of that name: a volume must not be taken for
// released because a mirror lags. nil: there is none.
func (c *Controller) getClaim(ctx context.Context, v *volume) (*claim, error) {
	ref := v.Spec.ClaimRef
	if known, ok := c.claims.Get(ref.Namespace, ref.Name); ok && known.UID == ref.UID {
		return known, nil
	}
	live, err := client.PersistentVolumeClaims.Get(ctx, c.transport, ref.Namespace, ref.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("get claim %q: %w", ref.Namespace+"/"+ref.Name, err)
	case live.UID != ref.UID:
		return nil, nil // made anew: not the one
	}
	return live, nil
}
