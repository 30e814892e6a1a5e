package devicetaint

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

type result = resourcev1.DeviceRequestAllocationResult

// tellEvery is how often the status of a rule is written while pods are evicted.
const tellEvery = 10 * time.Second

// Teller writes into the status of each DeviceTaintRule how far its eviction is, or
// what it would evict. Its keys are rules.
type Teller struct {
	transport client.Transport
	loop      *reconcile.Loop
	evictor   *Evictor
}

// NewTeller makes the controller that tells of what e does.
func NewTeller(cfg controller.Config, e *Evictor) (*Teller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Teller{transport: cfg.Transport(component), evictor: e}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	e.rules.Subscribe(func(ev informer.Event[*rule]) {
		if ev.New != nil && (ev.Old == nil || ev.Old.UID != ev.New.UID || ev.Old.Generation != ev.New.Generation) {
			c.loop.Enqueue(controller.KeyOf(ev.New))
		}
	})
	e.progress = func(r *rule) { c.loop.EnqueueAfter(controller.KeyOf(r), tellEvery) }
	return c, nil
}

// Name implements reconcile.Reconciler.
func (*Teller) Name() string { return "devicetaint-status" }

// Reads implements reconcile.Reconciler.
func (c *Teller) Reads() []schema.GroupVersionResource { return c.evictor.Reads() }

// Writes implements reconcile.Reconciler.
func (*Teller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.DeviceTaintRules.GroupVersionResource, Part: "status.conditions[EvictionInProgress]"}}
}

// Run implements controller.Controller.
func (c *Teller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Teller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	r, ok := c.evictor.rules.Get("", key.Name)
	if !ok {
		return 0, nil
	}
	now := time.Now()
	var have metav1.Condition
	if i := slices.IndexFunc(r.Status.Conditions, func(c metav1.Condition) bool { return c.Type == resourcev1.DeviceTaintConditionEvictionInProgress }); i >= 0 {
		have = r.Status.Conditions[i]
		if told := now.Sub(have.LastTransitionTime.Time); have.ObservedGeneration == r.Generation && told < tellEvery {
			return tellEvery - told, nil
		}
	}
	next := condition(r, c.survey(r), c.evictor.count(r.UID))
	if next.LastTransitionTime = have.LastTransitionTime; next == have {
		return 0, nil
	}
	next.LastTransitionTime = metav1.NewTime(now)
	return 0, c.write(ctx, r, next)
}

// survey is what a rule has to do with.
type survey struct {
	pods, namespaces   int // to be evicted
	devices, allocated int // that it means
}

// survey counts, as if the rule evicted.
func (c *Teller) survey(r *rule) (s survey) {
	spaces := map[string]bool{}
	alone := c.evictor.world()
	alone.rules = []*rule{r}
	for _, pod := range c.evictor.pods.List() {
		if len(pod.Spec.ResourceClaims) > 0 && pod.DeletionTimestamp == nil && alone.pod(pod).due(r.UID) {
			s.pods++
			spaces[pod.Namespace] = true
		}
	}
	s.namespaces = len(spaces)
	pools := map[string][]*slice{}
	for _, sl := range c.evictor.slices.List() {
		key := poolKey(sl.Spec.Driver, sl.Spec.Pool.Name)
		pools[key] = append(pools[key], sl)
	}
	for _, pool := range pools {
		for _, sl := range newest(pool) {
			for i := range sl.Spec.Devices {
				if means(r, sl.Spec.Driver, sl.Spec.Pool.Name, sl.Spec.Devices[i].Name) {
					s.devices++
				}
			}
		}
	}
	for _, cl := range c.evictor.claims.List() {
		if cl.Status.Allocation == nil {
			continue
		}
		for _, got := range cl.Status.Allocation.Devices.Results {
			if means(r, got.Driver, got.Pool, got.Device) {
				s.allocated++
			}
		}
	}
	return s
}

// condition is pure: what the status of a rule says, in upstream's words.
func condition(r *rule, s survey, evicted int) metav1.Condition {
	c := metav1.Condition{Type: resourcev1.DeviceTaintConditionEvictionInProgress, Status: metav1.ConditionFalse, ObservedGeneration: r.Generation}
	switch effect := r.Spec.Taint.Effect; {
	case effect == resourcev1.DeviceTaintEffectNone:
		c.Reason = "NoEffect"
		c.Message = fmt.Sprintf("%s selected. %s selected. %s would be evicted in %s if the effect was NoExecute. "+
			"This information will not be updated again. Recreate the DeviceTaintRule to trigger an update.",
			several(s.devices, "published device"), several(s.allocated, "allocated device"), several(s.pods, "pod"), different(s.namespaces))
	case effect != resourcev1.DeviceTaintEffectNoExecute:
		c.Reason, c.Message = "OtherEffect", "Eviction only happens for the NoExecute effect."
	case s.pods > 0:
		need := "need"
		if s.pods == 1 {
			need = "needs"
		}
		c.Reason, c.Status = "PodsPendingEviction", metav1.ConditionTrue
		c.Message = fmt.Sprintf("%s %s to be evicted in %s.", several(s.pods, "pod"), need, different(s.namespaces))
	case evicted > 0:
		c.Reason = "Completed"
	default:
		c.Reason = "NotStarted"
	}
	if evicted > 0 {
		if c.Message != "" {
			c.Message += " "
		}
		c.Message += several(evicted, "pod") + " evicted since starting the controller."
	}
	return c
}

func several(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprint(n, " ", what)
}

func different(namespaces int) string {
	if namespaces == 1 {
		return "1 namespace"
	}
	return fmt.Sprint(namespaces, " different namespaces")
}

// write applies the condition, if the rule is still the same.
func (c *Teller) write(ctx context.Context, r *rule, now metav1.Condition) error {
	data, err := json.Marshal(map[string]any{
		"apiVersion": resourcev1.SchemeGroupVersion.String(), "kind": "DeviceTaintRule",
		"metadata": map[string]any{"name": r.Name, "uid": r.UID},
		"status":   map[string]any{"conditions": []metav1.Condition{now}},
	})
	if err != nil {
		return fmt.Errorf("encode status of device taint rule %q: %w", r.Name, err)
	}
	force := true
	at := target.Of(client.DeviceTaintRules.GroupVersionResource, "").Object(r.Name).Sub("status")
	_, err = c.transport.Patch(ctx, at, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: component, Force: &force})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("tell of device taint rule %q: %w", r.Name, err)
	}
	return nil
}
