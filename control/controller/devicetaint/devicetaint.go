// Package devicetaint keeps a promise: pods leave devices with a NoExecute taint
// that their claims do not tolerate, at once or when the toleration ends. Taints
// come with the devices' ResourceSlices, or from DeviceTaintRules, whose status
// tells how far the eviction is. It follows upstream's
// pkg/controller/devicetainteviction, but decides anew from the objects each time.
package devicetaint

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

// component is the user, and the source of events.
const component = "device-taint-eviction-controller"

// Names of indexes.
const (
	byPool = "pool" // of slices and of allocated claims
	reason = "DeviceTaintManagerEviction"
)

// Evictor evicts pods. Its keys are pods.
type Evictor struct {
	transport client.Transport
	events    *client.Recorder
	loop      *reconcile.Loop
	pods      *informer.Informer[*corev1.Pod]
	claims    *informer.Informer[*claim]
	slices    *informer.Informer[*slice]
	rules     *informer.Informer[*rule]

	mu      sync.Mutex
	waiting map[reconcile.Key]types.UID // pods whose time has not come
	evicted map[types.UID]int           // pods, by rule
	// progress is told of rules whose eviction goes on.
	progress func(*rule)
}

// New makes the controller.
func New(cfg controller.Config) (*Evictor, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Evictor{
		transport: cfg.Transport(component),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
		claims:    controller.Mirror(cfg.Mirrors, client.ResourceClaims),
		slices:    controller.Mirror(cfg.Mirrors, client.ResourceSlices),
		rules:     controller.Mirror(cfg.Mirrors, client.DeviceTaintRules),
		waiting:   map[reconcile.Key]types.UID{}, evicted: map[types.UID]int{}, progress: func(*rule) {},
	}
	c.events = client.NewRecorder(c.transport, component, "")
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.slices.AddIndex(byPool, func(s *slice) []string { return []string{poolKey(s.Spec.Driver, s.Spec.Pool.Name)} })
	c.claims.AddIndex(byPool, pools)
	c.pods.Subscribe(c.podChanged)
	c.claims.Subscribe(func(e informer.Event[*claim]) {
		c.users(e.Old)
		c.users(e.New)
	})
	c.slices.Subscribe(c.sliceChanged)
	c.rules.Subscribe(c.ruleChanged)
	return c, nil
}

func poolKey(driver, pool string) string { return driver + "/" + pool }

// pools are those that a claim has devices of.
func pools(c *claim) (keys []string) {
	if c.Status.Allocation == nil {
		return nil
	}
	for _, got := range c.Status.Allocation.Devices.Results {
		if key := poolKey(got.Driver, got.Pool); !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// podChanged looks at a pod when it has come to a node, or has got its claims.
func (c *Evictor) podChanged(e informer.Event[*corev1.Pod]) {
	pod := e.Object()
	if len(pod.Spec.ResourceClaims) == 0 || e.New != nil && e.New.Spec.NodeName == "" {
		return
	}
	if e.Old != nil && e.New != nil && e.Old.Spec.NodeName != "" && e.Old.DeletionTimestamp.Equal(e.New.DeletionTimestamp) &&
		len(e.Old.Status.ResourceClaimStatuses) == len(e.New.Status.ResourceClaimStatuses) {
		return
	}
	c.loop.Enqueue(controller.KeyOf(pod))
}

// users looks at the pods that a claim is reserved for.
func (c *Evictor) users(of *claim) {
	if of == nil {
		return
	}
	for _, u := range of.Status.ReservedFor {
		if u.APIGroup == "" && u.Resource == "pods" {
			c.loop.Enqueue(reconcile.Key{Namespace: of.Namespace, Name: u.Name})
		}
	}
}

// sliceChanged looks at the users of a pool when taints that evict have come or gone,
// or another generation of slices counts.
func (c *Evictor) sliceChanged(e informer.Event[*slice]) {
	if e.Old != nil && e.New != nil && slices.Equal(taints(e.Old), taints(e.New)) {
		return
	}
	s := e.Object()
	for _, user := range c.claims.ByIndex(byPool, poolKey(s.Spec.Driver, s.Spec.Pool.Name)) {
		c.users(user)
	}
}

// ruleChanged looks at the users of all devices that a rule evicts from, or did.
func (c *Evictor) ruleChanged(e informer.Event[*rule]) {
	if e.New == nil {
		c.mu.Lock()
		delete(c.evicted, e.Old.UID)
		c.mu.Unlock()
	}
	if e.Old != nil && e.New != nil && e.Old.UID == e.New.UID && e.Old.Generation == e.New.Generation || !evicts(e.Old) && !evicts(e.New) {
		return
	}
	for _, user := range c.claims.List() {
		if concerns(e.Old, user) || concerns(e.New, user) {
			c.users(user)
		}
	}
}

// concerns says whether a rule is about one of a claim's devices.
func concerns(r *rule, c *claim) bool {
	return r != nil && c.Status.Allocation != nil &&
		slices.ContainsFunc(c.Status.Allocation.Devices.Results, func(got result) bool { return means(r, got.Driver, got.Pool, got.Device) })
}

// Name implements reconcile.Reconciler.
func (*Evictor) Name() string { return "devicetaint" }

// Reads implements reconcile.Reconciler.
func (*Evictor) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.Pods.GroupVersionResource, client.ResourceClaims.GroupVersionResource,
		client.ResourceSlices.GroupVersionResource, client.DeviceTaintRules.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Evictor) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.Pods.GroupVersionResource, Part: reconcile.Delete},
		{Resource: client.Pods.GroupVersionResource, Part: "status.conditions[DisruptionTarget, device taint]"},
	}
}

// Run implements controller.Controller.
func (c *Evictor) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// world is what there is, as the mirrors know it.
func (c *Evictor) world() *world {
	w := &world{
		claim: func(namespace, name string) *claim {
			found, _ := c.claims.Get(namespace, name)
			return found
		},
		pool: func(driver, pool string) []*slice { return c.slices.ByIndex(byPool, poolKey(driver, pool)) },
	}
	for _, r := range c.rules.List() {
		if evicts(r) {
			w.rules = append(w.rules, r)
		}
	}
	return w
}

// Reconcile implements reconcile.Reconciler.
func (c *Evictor) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	pod, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok || pod.DeletionTimestamp != nil {
		c.wait(key, "")
		return 0, nil
	}
	due := c.world().pod(pod)
	if due == nil {
		if c.wait(key, "") == pod.UID {
			c.events.Event(pod, corev1.EventTypeNormal, reason, "Cancelling deletion")
		}
		return 0, nil
	}
	for _, r := range due.rules {
		c.progress(r)
	}
	if left := time.Until(due.at); left > 0 {
		c.wait(key, pod.UID)
		return left, nil
	}
	c.wait(key, "")
	return 0, c.evict(ctx, pod, due)
}

// wait notes that the pod of a UID waits for its eviction, "" that none does, and
// returns which did before.
func (c *Evictor) wait(key reconcile.Key, uid types.UID) (before types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before = c.waiting[key]
	if uid == "" {
		delete(c.waiting, key)
	} else {
		c.waiting[key] = uid
	}
	return before
}

// evict says why and deletes a pod, unless it is another by now, or is on its way
// already: then it was counted.
func (c *Evictor) evict(ctx context.Context, known *corev1.Pod, due *eviction) error {
	pod, err := client.Pods.Get(ctx, c.transport, known.Namespace, known.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("get pod %q: %w", known.Name, err)
	case pod.UID != known.UID || pod.DeletionTimestamp != nil:
		return nil
	}
	c.events.Event(pod, corev1.EventTypeNormal, reason, "Marking for deletion")
	next := *pod.Status.DeepCopy()
	controller.SetPodCondition(&next, controller.Disruption("DeletionByDeviceTaintManager", "Device Taint manager: deleting due to NoExecute taint"), time.Now())
	err = controller.PatchPodStatus(ctx, c.transport, pod, next)
	if err == nil {
		err = client.Pods.Delete(ctx, c.transport, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	}
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("evict pod %q: %w", pod.Name, err)
	}
	c.mu.Lock()
	for _, r := range due.rules {
		c.evicted[r.UID]++
	}
	c.mu.Unlock()
	for _, r := range due.rules {
		c.progress(r)
	}
	return nil
}

// count is how many pods have been evicted because of a rule.
func (c *Evictor) count(uid types.UID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.evicted[uid]
}
