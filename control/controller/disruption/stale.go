package disruption

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

// Cleaner takes back announced disruptions that do not come: a pod that says it
// is about to be disrupted, and two minutes later is not being deleted, says so
// no more. Its keys are pods.
type Cleaner struct {
	transport client.Transport
	loop      *reconcile.Loop
	pods      *informer.Informer[*corev1.Pod]
}

// NewCleaner makes the controller.
func NewCleaner(cfg controller.Config) (*Cleaner, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Cleaner{transport: cfg.Transport(component), pods: controller.Mirror(cfg.Mirrors, client.Pods)}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Workers: 1, Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.New != nil && announced(e.New) >= 0 {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Cleaner) Name() string { return "disruption-cleaner" }

// Reads implements reconcile.Reconciler.
func (*Cleaner) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Cleaner) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.Pods.GroupVersionResource, Part: "status.conditions[" + string(corev1.DisruptionTarget) + " back to False]"}}
}

// Run implements controller.Controller.
func (c *Cleaner) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Cleaner) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	pod, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	i := announced(pod)
	if i < 0 {
		return 0, nil
	}
	now := time.Now()
	if wait := pod.Status.Conditions[i].LastTransitionTime.Add(patience).Sub(now); wait > 0 {
		return wait, nil
	}
	// The whole condition is new, without the reason that it had: an update, for
	// a patch would leave that.
	next := pod.DeepCopy()
	next.Status.Conditions[i] = corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse,
		ObservedGeneration: pod.Generation, LastTransitionTime: metav1.NewTime(now),
	}
	if _, err := client.Pods.UpdateStatus(ctx, c.transport, next); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("take back the disruption of pod %q: %w", key, err)
	}
	return 0, nil
}

// announced finds the condition of a disruption that may prove stale; -1: there
// is none. The node announces its own in advance, and takes as long as it takes.
func announced(pod *corev1.Pod) int {
	if pod.DeletionTimestamp != nil || controller.Ended(pod) {
		return -1
	}
	return slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason != corev1.PodReasonTerminationByKubelet
	})
}
