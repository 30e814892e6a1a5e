// Package disruption keeps two promises: a PodDisruptionBudget's status says how
// many of its pods may be disrupted now, and a pod that was told of a disruption
// which never came is told so. It follows upstream's pkg/controller/disruption.
// Evictions spend what the status allows, by compare-and-swap on the budget: a
// status that was computed before an eviction cannot overwrite it.
package disruption

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "disruption-controller"
	source    = "controllermanager" // how upstream signs these events
	// patience is how long an evicted pod may take to be seen as deleted, and how
	// long a pod may carry a disruption that does not come.
	patience = 2 * time.Minute
)

// Controller keeps the status of budgets. Its keys are budgets.
type Controller struct {
	transport client.Transport
	log       *slog.Logger
	events    *client.Recorder
	loop      *reconcile.Loop
	budgets   *informer.Informer[*policyv1.PodDisruptionBudget]
	pods      *informer.Informer[*corev1.Pod]
	scales    *scales
}

// New makes the controller; kinds say where the scale of a custom owner is found.
func New(cfg controller.Config, kinds *controller.Kinds) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	if kinds == nil {
		return nil, errors.New("disruption controller: no kinds")
	}
	c := &Controller{
		transport: cfg.Transport(component),
		log:       cfg.Log,
		budgets:   controller.Mirror(cfg.Mirrors, client.PodDisruptionBudgets),
		pods:      controller.Mirror(cfg.Mirrors, client.Pods),
	}
	c.events = client.NewRecorder(c.transport, source, "")
	c.scales = newScales(cfg.Mirrors, c.transport, kinds)
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	controller.IndexNamespaces(c.pods)
	controller.IndexNamespaces(c.budgets)
	c.budgets.Subscribe(func(e informer.Event[*policyv1.PodDisruptionBudget]) {
		if e.New != nil {
			c.loop.Enqueue(controller.KeyOf(e.New))
		}
	})
	c.pods.Subscribe(c.podChanged)
	return c, nil
}

// podChanged looks at the budgets that cover a pod, or have covered it.
func (c *Controller) podChanged(e informer.Event[*corev1.Pod]) {
	budgets := controller.InNamespace(c.budgets, e.Object().Namespace, labels.Everything())
	covering := 0
	first := ""
	for _, b := range budgets {
		now := e.New != nil && covers(b, e.New)
		if now {
			covering++
			if covering == 1 {
				first = b.Name
			}
		}
		if now || e.Old != nil && covers(b, e.Old) {
			c.loop.Enqueue(controller.KeyOf(b))
		}
	}
	if covering > 1 {
		c.events.Eventf(e.New, corev1.EventTypeWarning, "MultiplePodDisruptionBudgets",
			"Pod %q/%q matches multiple PodDisruptionBudgets.  Chose %q arbitrarily.", e.New.Namespace, e.New.Name, first)
	}
}

// covers says whether a budget is about pod. One with a selector that cannot be
// read covers nothing, an empty selector everything.
func covers(b *policyv1.PodDisruptionBudget, pod *corev1.Pod) bool {
	s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	return err == nil && s.Matches(labels.Set(pod.Labels))
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "disruption" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		client.PodDisruptionBudgets.GroupVersionResource, client.Pods.GroupVersionResource,
		client.ReplicationControllers.GroupVersionResource, client.ReplicaSets.GroupVersionResource,
		client.Deployments.GroupVersionResource, client.StatefulSets.GroupVersionResource,
	}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.PodDisruptionBudgets.GroupVersionResource, Part: "status"}}
}

// Everywhere implements controller.Everywhere: pods may belong to whatever has a scale.
func (*Controller) Everywhere() (reads bool, writes []string) { return true, nil }

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler. When it cannot tell, nothing may be
// disrupted, and the condition says why.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	budget, ok := c.budgets.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	now := time.Now()
	v, err := c.look(ctx, budget, now)
	if err != nil {
		if apierrors.IsConflict(err) {
			return 0, err
		}
		c.log.Warn("cannot tell what may be disrupted", "budget", key.String(), "err", err)
		return 0, c.write(ctx, budget, failed(budget, err, now))
	}
	for _, pod := range v.survivors {
		// The namespace twice, as upstream has it.
		c.events.Eventf(pod, corev1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", budget.Namespace, budget.Namespace)
	}
	if err := c.write(ctx, budget, v.status); err != nil {
		return 0, err
	}
	return v.again, nil
}

// look counts and judges.
func (c *Controller) look(ctx context.Context, budget *policyv1.PodDisruptionBudget, now time.Time) (verdict, error) {
	selector, err := metav1.LabelSelectorAsSelector(budget.Spec.Selector)
	if err != nil {
		c.events.Eventf(budget, corev1.EventTypeWarning, "NoPods", "Failed to get pods: %v", err)
		return verdict{}, err
	}
	pods := controller.InNamespace(c.pods, budget.Namespace, selector)
	if len(pods) == 0 {
		c.events.Event(budget, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	scale := wanted{total: int32(len(pods))}
	if byScale(budget) {
		if scale, err = c.scales.of(ctx, pods); err != nil {
			c.events.Eventf(budget, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
			return verdict{}, err
		}
	}
	if scale.unmanaged {
		c.events.Eventf(budget, corev1.EventTypeWarning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %v) were found "+
			"to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" "+
			"field of the PDB to an integer value.", budget.Spec.Selector)
	}
	v, err := judge(budget, pods, scale.total, now)
	if err != nil {
		c.events.Eventf(budget, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
	}
	return v, err
}

// write stores a status that differs. Without a retry of its own: what has
// changed meanwhile must be judged again.
func (c *Controller) write(ctx context.Context, budget *policyv1.PodDisruptionBudget, status policyv1.PodDisruptionBudgetStatus) error {
	if same(&budget.Status, &status) {
		return nil
	}
	next := budget.DeepCopy()
	next.Status = status
	if _, err := client.PodDisruptionBudgets.UpdateStatus(ctx, c.transport, next); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of budget %q: %w", controller.KeyOf(budget), err)
	}
	return nil
}
