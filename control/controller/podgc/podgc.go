// Package podgc keeps a promise: pods that no node will ever finish are removed.
// It follows upstream's pkg/controller/podgc, but waits for events where that
// looks around every twenty seconds.
package podgc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

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

const (
	component = "pod-garbage-collector"
	// DefaultThreshold is how many ended pods are kept before the oldest go.
	DefaultThreshold = 12500
	// quarantine is how long a node must have been missing before its pods are
	// given up: it may only not have registered yet.
	quarantine = 40 * time.Second
	byPhase    = "ended" // index of pods that have ended
)

// everyone is the key under which the number of ended pods is judged.
var everyone = reconcile.Key{}

// Controller removes pods. Its keys are pods, and everyone.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	loop      *reconcile.Loop
	pods      *informer.Informer[*corev1.Pod]
	nodes     *informer.Informer[*corev1.Node]
	threshold int

	mu      sync.Mutex
	missing map[string]time.Time // nodes that pods name and nobody knows, since when
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		log:       cfg.Log,
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		nodes:     controller.Mirror(cfg.Mirrors, client.Nodes),
		threshold: DefaultThreshold,
		missing:   map[string]time.Time{},
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	controller.IndexNodes(c.pods)
	c.pods.AddIndex(byPhase, func(p *corev1.Pod) []string {
		if controller.Ended(p) {
			return []string{""}
		}
		return nil
	})
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.New == nil {
			return
		}
		if e.Old == nil || e.Old.Spec.NodeName != e.New.Spec.NodeName || (e.Old.DeletionTimestamp == nil) != (e.New.DeletionTimestamp == nil) {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
		if controller.Ended(e.New) && (e.Old == nil || !controller.Ended(e.Old)) {
			c.loop.Enqueue(everyone)
		}
	})
	c.nodes.Subscribe(c.enqueuePods)
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "podgc" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Pods.GroupVersionResource, client.Nodes.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.Pods.GroupVersionResource, Part: reconcile.Delete},
		{Resource: client.Pods.GroupVersionResource, Part: "status.phase[node gone]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// enqueuePods looks at a node's pods when it goes, or may be out of service.
func (c *Controller) enqueuePods(e informer.Event[*corev1.Node]) {
	if e.New != nil && !outOfService(e.New) {
		return
	}
	for _, pod := range controller.OnNode(c.pods, e.Object().Name) {
		c.loop.Enqueue(controller.KeyOf(pod))
	}
}

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	if key == everyone {
		return 0, c.thinOut(ctx)
	}
	pod, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	node, known := c.nodes.Get("", pod.Spec.NodeName)
	v := judge(pod, node, known)
	if v == orphaned {
		wait, err := c.confirm(ctx, pod.Spec.NodeName)
		if err != nil || wait > 0 {
			return wait, err
		}
		if _, back := c.nodes.Get("", pod.Spec.NodeName); back {
			return 0, nil
		}
	}
	return 0, c.remove(ctx, pod, v)
}

// verdict is why a pod is removed; "" lets it live.
type verdict string

const (
	orphaned    verdict = "its node is gone"
	unscheduled verdict = "it was deleted before it had a node"
	abandoned   verdict = "its node is out of service"
)

// judge is pure.
func judge(pod *corev1.Pod, node *corev1.Node, known bool) verdict {
	switch {
	case pod.Spec.NodeName == "" && pod.DeletionTimestamp != nil:
		return unscheduled
	case pod.Spec.NodeName == "":
		return ""
	case !known:
		return orphaned
	case pod.DeletionTimestamp != nil && outOfService(node):
		return abandoned
	}
	return ""
}

// outOfService says that somebody has declared a node that is not ready dead.
func outOfService(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return false
		}
	}
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// confirm makes sure that a node has been gone for long enough and that the
// server does not know it either. wait > 0: not yet.
func (c *Controller) confirm(ctx context.Context, node string) (wait time.Duration, err error) {
	now := time.Now()
	c.mu.Lock()
	for name := range c.missing {
		if _, back := c.nodes.Get("", name); back {
			delete(c.missing, name)
		}
	}
	since, ok := c.missing[node]
	if !ok {
		since = now
		c.missing[node] = now
	}
	c.mu.Unlock()
	if wait := since.Add(quarantine).Sub(now); wait > 0 {
		return wait, nil
	}
	_, err = client.Nodes.Get(ctx, c.transport, "", node)
	switch {
	case apierrors.IsNotFound(err):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("get node %q: %w", node, err)
	}
	return quarantine, nil // it is back, the mirror will tell
}

// remove ends a pod whose node cannot, or that has none: it has failed, and is gone. Who
// counts failures keeps it until it says that it has failed.
func (c *Controller) remove(ctx context.Context, pod *corev1.Pod, v verdict) (err error) {
	if v == "" {
		return nil
	}
	reasons := map[verdict]string{orphaned: measure.PodOrphaned, unscheduled: measure.PodUnscheduled, abandoned: measure.PodOutOfService}
	defer func() { measure.From(ctx).PodForced(pod.Namespace, reasons[v], err) }()
	c.log.Info("removing a pod", "namespace", pod.Namespace, "pod", pod.Name, "reason", string(v))
	if !controller.Ended(pod) {
		next := *pod.Status.DeepCopy()
		next.Phase, next.ObservedGeneration = corev1.PodFailed, pod.Generation
		if v == orphaned {
			doomed := controller.Disruption("DeletionByPodGC", "PodGC: node no longer exists")
			doomed.ObservedGeneration = pod.Generation
			controller.SetPodCondition(&next, doomed, time.Now())
		}
		err := controller.PatchPodStatus(ctx, c.transport, pod, next)
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return c.delete(ctx, pod)
}

func (c *Controller) delete(ctx context.Context, pod *corev1.Pod) error {
	now := int64(0)
	err := client.Pods.Delete(ctx, c.transport, pod.Namespace, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete pod %q: %w", pod.Name, err)
	}
	return nil
}

// thinOut removes the oldest ended pods beyond the threshold.
func (c *Controller) thinOut(ctx context.Context) error {
	ended := slices.DeleteFunc(c.pods.ByIndex(byPhase, ""), func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	excess := len(ended) - c.threshold
	if excess <= 0 {
		return nil
	}
	slices.SortFunc(ended, leastMissed)
	var errs []error
	for _, pod := range ended[:excess] {
		err := c.delete(ctx, pod)
		measure.From(ctx).PodForced(pod.Namespace, measure.PodTerminated, err)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// leastMissed orders ended pods: those first that a node has evicted, for nobody counts
// them, then the oldest.
func leastMissed(a, b *corev1.Pod) int {
	if evicted(a) != evicted(b) {
		if evicted(a) {
			return -1
		}
		return 1
	}
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
}

// evicted says whether a node has stopped a pod because it was short of something.
func evicted(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == "Evicted"
}
