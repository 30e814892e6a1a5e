// Package taint keeps a promise: pods leave a node with a NoExecute taint that
// they do not tolerate, at once or when their toleration ends. It follows
// upstream's pkg/controller/tainteviction; but the time of a toleration runs
// from when the taint was added, where the taint says when, so that a restart does
// not start it anew.
package taint

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "node-controller" // the user
	source    = "taint-eviction-controller"
)

// Controller evicts pods. Its keys are pods.
type Controller struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	pods      *informer.Informer[*corev1.Pod]
	nodes     *informer.Informer[*corev1.Node]

	mu        sync.Mutex
	scheduled map[reconcile.Key]pending
}

// pending is a pod that will have to go.
type pending struct {
	uid types.UID
	// undated is since when the taints are known that do not say themselves when they
	// were added.
	undated map[corev1.Taint]time.Time
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		nodes:     controller.Mirror(cfg.Mirrors, client.Nodes),
		scheduled: map[reconcile.Key]pending{},
	}
	c.events = client.NewRecorder(c.transport, source, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	controller.IndexNodes(c.pods)
	c.pods.Subscribe(func(e informer.Event[*corev1.Pod]) {
		if e.New == nil || e.New.Spec.NodeName != "" && (e.Old == nil || e.Old.Spec.NodeName == "" || len(e.Old.Spec.Tolerations) != len(e.New.Spec.Tolerations)) {
			c.loop.Enqueue(controller.KeyOf(e.Object()))
		}
	})
	c.nodes.Subscribe(func(e informer.Event[*corev1.Node]) {
		if len(lasting(e.Old)) == 0 && len(lasting(e.New)) == 0 || e.Old != nil && e.New != nil && slices.EqualFunc(lasting(e.Old), lasting(e.New), sameTaint) {
			return
		}
		for _, pod := range controller.OnNode(c.pods, e.Object().Name) {
			c.loop.Enqueue(controller.KeyOf(pod))
		}
	})
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "taint" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Pods.GroupVersionResource, client.Nodes.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.Pods.GroupVersionResource, Part: reconcile.Delete},
		{Resource: client.Pods.GroupVersionResource, Part: "status.conditions[DisruptionTarget, taint]"},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	pod, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok || pod.DeletionTimestamp != nil {
		c.cancel(key)
		return 0, nil
	}
	node, ok := c.nodes.Get("", pod.Spec.NodeName)
	if !ok {
		return 0, nil
	}
	now := time.Now()
	taints, undated := c.dated(pod, lasting(node), now)
	wait, evict := decide(pod, taints, now)
	switch {
	case !evict:
		if c.cancel(key) {
			c.events.Eventf(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s", key)
		}
		return 0, nil
	case wait > 0:
		c.schedule(pod, undated)
		return wait, nil
	}
	return 0, c.evict(ctx, pod)
}

// dated are a node's taints with the times at which they were added; for those that
// do not tell, and which are returned, too, that is when the pod was first seen
// with them.
func (c *Controller) dated(pod *corev1.Pod, taints []corev1.Taint, now time.Time) (all []corev1.Taint, undated map[corev1.Taint]time.Time) {
	c.mu.Lock()
	known := c.scheduled[controller.KeyOf(pod)]
	c.mu.Unlock()
	if known.uid != pod.UID {
		known.undated = nil // it was another's of this name
	}
	all, undated = slices.Clone(taints), map[corev1.Taint]time.Time{}
	for i, t := range all {
		if t.TimeAdded != nil {
			continue
		}
		since, ok := known.undated[t]
		if !ok {
			since = now
		}
		undated[t], all[i].TimeAdded = since, &metav1.Time{Time: since}
	}
	return all, undated
}

// schedule notes that an eviction is pending.
func (c *Controller) schedule(pod *corev1.Pod, undated map[corev1.Taint]time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheduled[controller.KeyOf(pod)] = pending{pod.UID, undated}
}

// cancel returns whether an eviction was pending.
func (c *Controller) cancel(key reconcile.Key) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, was = c.scheduled[key]
	delete(c.scheduled, key)
	return was
}

// decide says whether a pod has to leave a node with these NoExecute taints, which
// are dated, and in what time.
func decide(pod *corev1.Pod, taints []corev1.Taint, now time.Time) (wait time.Duration, evict bool) {
	for i := range taints {
		stay, forever := tolerated(pod, &taints[i])
		if forever {
			continue
		}
		left := max(0, taints[i].TimeAdded.Add(stay).Sub(now))
		if !evict || left < wait {
			wait = left
		}
		evict = true
	}
	return wait, evict
}

// tolerated is how long the pod tolerates a taint: the shortest of its
// tolerations that match, nothing when none does.
func tolerated(pod *corev1.Pod, taint *corev1.Taint) (stay time.Duration, forever bool) {
	matched, limited := false, false
	for i := range pod.Spec.Tolerations {
		t := &pod.Spec.Tolerations[i]
		if !tolerates(t, taint) {
			continue
		}
		matched = true
		if t.TolerationSeconds == nil {
			continue
		}
		if d := time.Duration(max(0, *t.TolerationSeconds)) * time.Second; !limited || d < stay {
			stay = d
		}
		limited = true
	}
	return stay, matched && !limited
}

// tolerates is the API's rule for one toleration and one NoExecute taint.
func tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Key != "" && t.Value == taint.Value
	}
	return false
}

// lasting are a node's NoExecute taints.
func lasting(node *corev1.Node) []corev1.Taint {
	if node == nil {
		return nil
	}
	var found []corev1.Taint
	for _, t := range node.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			found = append(found, t)
		}
	}
	return found
}

func sameTaint(a, b corev1.Taint) bool {
	return a.Key == b.Key && a.Value == b.Value && a.TimeAdded.Equal(b.TimeAdded)
}

// evict marks a pod and deletes it. It stays scheduled until it is seen to go: should
// this fail, its time has run out all the same.
func (c *Controller) evict(ctx context.Context, pod *corev1.Pod) error {
	next := *pod.Status.DeepCopy()
	doomed := controller.Disruption("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
	doomed.ObservedGeneration = pod.Generation
	controller.SetPodCondition(&next, doomed, time.Now())
	err := controller.PatchPodStatus(ctx, c.transport, pod, next)
	if err == nil {
		c.events.Eventf(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s", controller.KeyOf(pod))
		err = client.Pods.Delete(ctx, c.transport, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("evict pod %q: %w", pod.Name, err)
	}
	return nil
}
