// Package ttlafterfinished keeps a promise: a finished Job that has a
// ttlSecondsAfterFinished is removed when that is over, with its pods. It follows
// upstream's pkg/controller/ttlafterfinished.
package ttlafterfinished

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/reconcile"
)

// component is the user, as upstream's.
const component = "ttl-after-finished-controller"

// Controller removes finished jobs.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	jobs      *informer.Informer[*batchv1.Job]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{transport: cfg.Transport(component), jobs: controller.Mirror(cfg.Mirrors, client.Jobs)}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.jobs.Subscribe(func(e informer.Event[*batchv1.Job]) {
		if e.New != nil {
			if _, ok := expiry(e.New); ok {
				c.loop.Enqueue(controller.KeyOf(e.New))
			}
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "ttlafterfinished" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Jobs.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.Jobs.GroupVersionResource, Part: reconcile.Delete}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler. Before it removes a job it asks the
// server: the time may have been prolonged, or the job be another one.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	job, ok := c.jobs.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	at, ok := expiry(job)
	if !ok || time.Now().Before(at) {
		return until(at, ok), nil
	}
	job, err := client.Jobs.Get(ctx, c.transport, key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read job %q: %w", key, err)
	}
	at, ok = expiry(job)
	if !ok || time.Now().Before(at) {
		return until(at, ok), nil
	}
	foreground := metav1.DeletePropagationForeground
	err = client.Jobs.Delete(ctx, c.transport, key.Namespace, key.Name,
		metav1.DeleteOptions{PropagationPolicy: &foreground, Preconditions: &metav1.Preconditions{UID: &job.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return 0, fmt.Errorf("delete job %q: %w", key, err)
	}
	if err == nil {
		measure.From(ctx).JobExpired(time.Since(at))
	}
	return 0, nil
}

// expiry is when a job is to be removed; false: not at all, so far.
func expiry(job *batchv1.Job) (time.Time, bool) {
	ttl := job.Spec.TTLSecondsAfterFinished
	if ttl == nil || job.DeletionTimestamp != nil {
		return time.Time{}, false
	}
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Add(time.Duration(*ttl) * time.Second), true
		}
	}
	return time.Time{}, false
}

func until(at time.Time, ok bool) time.Duration {
	if !ok {
		return 0
	}
	return max(time.Millisecond, time.Until(at))
}
