// Package giveup keeps a promise: a pod whose container has failed after as many
// restarts as the pod wants at most, as sampan run --restart on-failure:3 has it want,
// is ended. Its status and what it printed stay.
package giveup

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

// Annotation is how many restarts a pod wants at most: a number above 0.
const Annotation = "sampan.dev/most-restarts"

// component is the user.
const component = "sampan-giveup"

// patch ends a pod as a deadline does: nothing is deleted. The next start is seconds
// away, since a container that keeps failing is held back.
const patch = `{"metadata":{"uid":%q},"spec":{"activeDeadlineSeconds":1}}`

// Controller ends pods that have failed often enough.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	pods      *informer.Informer[*corev1.Pod]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{transport: cfg.Transport(component), pods: controller.Mirror(cfg.Mirrors, client.Pods)}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.New != nil && enough(e.New) {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "giveup" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Pods.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.Pods.GroupVersionResource, Part: "spec.activeDeadlineSeconds"}}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	pod, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok || !enough(pod) {
		return 0, nil
	}
	at := target.Of(client.Pods.GroupVersionResource, key.Namespace).Object(key.Name)
	_, err := client.Pods.Patch(ctx, c.transport, at, client.Patch{Type: types.MergePatchType, Data: fmt.Appendf(nil, patch, pod.UID)})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return 0, fmt.Errorf("end pod %q: %w", key, err)
	}
	return 0, nil
}

// enough says whether a container of the pod has failed, after as many restarts as the
// pod wants.
func enough(pod *corev1.Pod) bool {
	most, err := strconv.ParseInt(pod.Annotations[Annotation], 10, 32)
	if err != nil || most < 1 || pod.DeletionTimestamp != nil || pod.Spec.ActiveDeadlineSeconds != nil {
		return false
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	for i := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[i]; int64(s.RestartCount) >= most && failed(s) {
			return true
		}
	}
	return false
}

// failed says whether a container has ended badly, and does not run again yet.
func failed(s *corev1.ContainerStatus) bool {
	end := s.State.Terminated
	if s.State.Waiting != nil {
		end = s.LastTerminationState.Terminated
	}
	return end != nil && end.ExitCode != 0
}
