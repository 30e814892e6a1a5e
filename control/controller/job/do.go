package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/measure"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

// do carries out m and says how far it came.
func (c *Controller) do(ctx context.Context, job *batchv1.Job, m moves) (outcome, error) {
	if len(m.create)+len(m.remove) > 0 {
		c.log.Debug("job step", "key", controller.KeyOf(job), "create", len(m.create), "remove", len(m.remove), "reason", m.reason)
	}
	var mu sync.Mutex
	var o outcome
	err := controller.AtOnce(len(m.remove), func(i int) error {
		pod := m.remove[i]
		if m.untrack {
			if err := c.untrack(ctx, controller.KeyOf(job), pod); err != nil {
				return fmt.Errorf("removing completion finalizer: %w", err)
			}
		}
		if err := c.hands.Delete(ctx, job, pod); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		o.removed = append(o.removed, pod)
		return nil
	})
	if err != nil {
		return o, err
	}
	err = controller.InBatches(len(m.create), func(i int) error {
		if err := c.hands.Create(ctx, job, m.create[i]); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		o.created++
		return nil
	})
	return o, err
}

// account does the books: the status names the pods that have ended, their
// finalizers go, the status counts them.
func (c *Controller) account(ctx context.Context, key reconcile.Key, r *round, m moves, o outcome) error {
	b := r.account(m, o)
	if err := c.write(ctx, key, r, &r.was, b.news); err != nil {
		return fmt.Errorf("adding uncounted pods to status: %w", err)
	}
	measure.From(ctx).PodFailures(b.handled)
	c.remember(key, r.streak)
	stored := r.job.DeepCopy()
	left := r.trackedUIDs()
	var mu sync.Mutex
	untrackErr := controller.AtOnce(len(b.untrack), func(i int) error {
		if err := c.untrack(ctx, key, b.untrack[i]); err != nil {
			return fmt.Errorf("removing tracking finalizer: %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		delete(left, b.untrack[i].UID)
		return nil
	})
	r.settle(left)
	var told []news
	if untrackErr == nil {
		told = r.finish(b)
	}
	if err := c.write(ctx, key, r, &stored.Status, told); err != nil {
		return errors.Join(untrackErr, fmt.Errorf("removing uncounted pods from status: %w", err))
	}
	if len(told) > 0 {
		measure.From(ctx).JobFinished(r.job, b.end)
	}
	return untrackErr
}

// write stores the round's status if it differs from was, and then tells the
// news. The round goes on with the job as stored.
func (c *Controller) write(ctx context.Context, key reconcile.Key, r *round, was *batchv1.JobStatus, told []news) error {
	if equality.Semantic.DeepEqual(*was, r.job.Status) {
		return nil
	}
	stored, err := client.Jobs.UpdateStatus(ctx, c.transport, r.job)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	c.ownJobs.Wrote(key, stored)
	measure.From(ctx).JobPods(r.job, was)
	status := r.job.Status
	r.job = stored.DeepCopy()
	r.job.Status = status // the same, but for what the wire drops
	for _, n := range told {
		c.events.Event(r.job, n.eventtype, n.reason, n.message)
	}
	return nil
}

// untrack takes the finalizer off a pod of the job.
func (c *Controller) untrack(ctx context.Context, key reconcile.Key, pod *corev1.Pod) error {
	if !tracked(pod) {
		return nil
	}
	patched, err := untrack(ctx, c.transport, pod, map[string]any{"uid": pod.UID})
	if err != nil || patched == nil {
		return err
	}
	c.ownPods.Wrote(key, patched)
	return nil
}

// untrack takes the finalizer off a pod that is still as sure says. It returns
// nil when the pod is gone, or is another one (422 for the uid), which is as good.
func untrack(ctx context.Context, t client.Transport, pod *corev1.Pod, sure map[string]any) (*corev1.Pod, error) {
	sure["$deleteFromPrimitiveList/finalizers"] = []string{batchv1.JobTrackingFinalizer}
	data, err := json.Marshal(map[string]any{"metadata": sure})
	if err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name)
	patched, err := client.Pods.Patch(ctx, t, at, client.Patch{Type: types.StrategicMergePatchType, Data: data})
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return patched, nil
}
