// Package horizontalpodautoscaler keeps a promise: a workload has as many
// replicas as its metrics ask for, within the bounds and at the speed that its
// HorizontalPodAutoscaler allows. It follows upstream's
// pkg/controller/podautoscaler: arithmetic, conditions, events and their words.
//
// Any kind with a scale subresource can be sized. Metrics are read through the
// API: metrics.k8s.io, which the API server has itself, and
// custom.metrics.k8s.io and external.metrics.k8s.io where somebody serves them.
package horizontalpodautoscaler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "horizontal-pod-autoscaler"
	// period is how often metrics are read for each autoscaler: upstream's.
	period = 15 * time.Second
	// maxRetries bounds the writes of one object that others write too.
	maxRetries = 5
)

// hpa is what is kept.
type hpa = autoscalingv2.HorizontalPodAutoscaler

// Controller sizes workloads. Its keys are autoscalers.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	events    *client.Recorder
	loop      *reconcile.Loop
	kinds     *controller.Kinds
	hpas      *informer.Informer[*hpa]
	pods      *informer.Informer[*corev1.Pod]
	own       *controller.Own[*hpa]
	custom    versions

	mu     sync.Mutex
	memory map[reconcile.Key]*memory
	// selectors are whose pods each autoscaler sizes, as far as known.
	selectors map[reconcile.Key]labels.Selector
}

// New makes the controller; kinds say where an object's scale is found.
func New(cfg controller.Config, kinds *controller.Kinds) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if kinds == nil {
		return nil, errors.New("horizontal pod autoscaler: no kinds")
	}
	c := &Controller{
		transport: cfg.Transport(component), log: cfg.Log, kinds: kinds,
		hpas:   controller.Mirror(cfg.Mirrors, client.HorizontalPodAutoscalers),
		pods:   controller.Mirror(cfg.Mirrors, client.Pods),
		memory: map[reconcile.Key]*memory{}, selectors: map[reconcile.Key]labels.Selector{},
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.own = controller.NewOwn(c.hpas)
	controller.IndexNamespaces(c.pods)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 5, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.hpas.Subscribe(func(e informer.Event[*hpa]) {
		// What this controller writes itself changes no generation, and waits for
		// its time.
		if e.Old == nil || e.New == nil || e.Old.Generation != e.New.Generation || e.Old.UID != e.New.UID {
			c.loop.Enqueue(controller.KeyOf(e.Object()))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "horizontalpodautoscaler" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.HorizontalPodAutoscalers.GroupVersionResource, client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler. The scale of a workload is shared with
// people, who may set it at any time.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.HorizontalPodAutoscalers.GroupVersionResource, Part: "status"}}
}

// Everywhere implements controller.Everywhere: whatever has a scale can be autoscaled.
func (*Controller) Everywhere() (reads bool, writes []string) { return true, []string{"spec.replicas"} }

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler. What fails is told by conditions and
// events, and tried again in the usual time: metrics do not come sooner for
// being asked more often.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	have, ok := c.hpas.Get(key.Namespace, key.Name)
	measure.From(ctx).Autoscalers(c.hpas.Len())
	if !ok {
		measure.From(ctx).AutoscalerGone(key.Namespace, key.Name)
		c.forget(key)
		return 0, nil
	}
	if !c.own.Seen(key) {
		measure.From(ctx).AutoscalerStale()
		return time.Second, nil
	}
	r := &round{c: c, key: key, had: have, h: have.DeepCopy(), now: time.Now(), mem: c.remember(key)}
	if err := r.run(ctx); err != nil {
		c.log.Debug("autoscaling", "autoscaler", key.String(), "err", err)
	}
	return period, nil
}

// remember is what is known of an autoscaler's past. One worker has a key at a
// time, so its memory needs no lock of its own.
func (c *Controller) remember(key reconcile.Key) *memory {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.memory[key] == nil {
		c.memory[key] = &memory{}
		c.selectors[key] = labels.Nothing()
	}
	return c.memory[key]
}

func (c *Controller) forget(key reconcile.Key) {
	c.own.Forget(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.memory, key)
	delete(c.selectors, key)
}

// write stores the status if it differs, on top of whatever the object has become,
// and returns the object as it is then.
func (c *Controller) write(ctx context.Context, had, h *hpa) (*hpa, error) {
	if equality.Semantic.DeepEqual(had.Status, h.Status) {
		return had, nil
	}
	next := had.DeepCopy()
	next.Status = h.Status
	for range maxRetries {
		made, err := client.HorizontalPodAutoscalers.UpdateStatus(ctx, c.transport, next)
		if err == nil {
			c.own.Wrote(controller.KeyOf(h), made)
			return made, nil
		}
		if !apierrors.IsConflict(err) {
			c.events.Event(h, corev1.EventTypeWarning, "FailedUpdateStatus", err.Error())
			return nil, fmt.Errorf("failed to update status for %s: %w", h.Name, err)
		}
		live, err := client.HorizontalPodAutoscalers.Get(ctx, c.transport, h.Namespace, h.Name)
		if err != nil {
			return nil, err
		}
		if live.UID != h.UID {
			return nil, fmt.Errorf("autoscaler %q has been made anew", h.Name)
		}
		next = live.DeepCopy()
		next.Status = h.Status
	}
	return nil, fmt.Errorf("failed to update status for %s: it is written by others all the time", h.Name)
}
