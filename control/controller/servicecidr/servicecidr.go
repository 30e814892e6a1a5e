// Package servicecidr keeps a promise: a range of service addresses that is
// deleted stays as long as some address is in no other range, and says so. It
// follows upstream's pkg/controller/servicecidrs.
package servicecidr

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	component = "service-cidrs-controller"
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	manager   = "ipallocator.k8s.io"
	// propagation is how long a range that nobody needs stays all the same: an API
	// server may not have heard yet that it is to go. Upstream's.
	propagation = 10 * time.Second
)

// Controller keeps ranges. Its keys are ServiceCIDRs.
type Controller struct {
	transport client.Transport
	loop      *reconcile.Loop
	ranges    *informer.Informer[*networkingv1.ServiceCIDR]
	addresses *informer.Informer[*networkingv1.IPAddress]
}

// New makes the controller.
func New(cfg controller.Config) (*Controller, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	c := &Controller{
		transport: cfg.Transport(component),
		ranges:    controller.Mirror(cfg.Mirrors, client.ServiceCIDRs),
		addresses: controller.Mirror(cfg.Mirrors, client.IPAddresses),
	}
	c.loop = reconcile.NewLoop(c, reconcile.Config{Log: cfg.Log, Synced: cfg.Mirrors.Synced(c.Reads()...)})
	c.ranges.Subscribe(c.rangeChanged)
	c.addresses.Subscribe(func(e informer.Event[*networkingv1.IPAddress]) {
		if addr, ok := ours(e.Object()); ok && (e.Old == nil || e.New == nil) {
			c.lookAt(func(p netip.Prefix) bool { return p.Contains(addr) })
		}
	})
	return c, nil
}

// rangeChanged looks at the range, and when one comes or goes at those that it
// overlaps: they may be needed now, or not any more.
func (c *Controller) rangeChanged(e informer.Event[*networkingv1.ServiceCIDR]) {
	c.loop.Enqueue(controller.KeyOf(e.Object()))
	if e.Old != nil && e.New != nil {
		return
	}
	for _, mine := range prefixes(e.Object()) {
		c.lookAt(func(p netip.Prefix) bool { return p.Overlaps(mine) })
	}
}

// lookAt enqueues the ranges that are being deleted and fit.
func (c *Controller) lookAt(fits func(netip.Prefix) bool) {
	for _, r := range c.ranges.List() {
		if r.DeletionTimestamp != nil && slices.ContainsFunc(prefixes(r), fits) {
			c.loop.Enqueue(controller.KeyOf(r))
		}
	}
}

// Name implements reconcile.Reconciler.
func (*Controller) Name() string { return "servicecidr" }

// Reads implements reconcile.Reconciler.
func (*Controller) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.ServiceCIDRs.GroupVersionResource, client.IPAddresses.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Controller) Writes() []reconcile.Write {
	return []reconcile.Write{
		{Resource: client.ServiceCIDRs.GroupVersionResource, Part: "metadata.finalizers[" + finalizer + "]"},
		{Resource: client.ServiceCIDRs.GroupVersionResource, Part: reconcile.Status},
	}
}

// Run implements controller.Controller.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (c *Controller) Reconcile(ctx context.Context, key reconcile.Key) (time.Duration, error) {
	r, ok := c.ranges.Get("", key.Name)
	if !ok {
		return 0, nil
	}
	has := slices.Contains(r.Finalizers, finalizer)
	if r.DeletionTimestamp == nil {
		if !has {
			if err := c.patch(ctx, r, "finalizers"); err != nil {
				return 0, err
			}
		}
		return 0, c.tell(ctx, r, metav1.ConditionTrue, "", "Kubernetes Service CIDR is ready")
	}
	if !has {
		return 0, nil
	}
	if needed(r, c.ranges.List(), c.addresses.List()) {
		return 0, c.tell(ctx, r, metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating,
			"There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR")
	}
	if wait := propagation - time.Since(r.DeletionTimestamp.Time); wait > 0 {
		return wait, nil
	}
	return 0, c.patch(ctx, r, "$deleteFromPrimitiveList/finalizers")
}

// patch adds or removes the finalizer. The range must still be the same one.
func (c *Controller) patch(ctx context.Context, r *networkingv1.ServiceCIDR, field string) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": r.UID, field: []string{finalizer}}})
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	at := target.Of(client.ServiceCIDRs.GroupVersionResource, "").Object(r.Name)
	_, err = client.ServiceCIDRs.Patch(ctx, c.transport, at, client.Patch{Type: types.StrategicMergePatchType, Data: data})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patch finalizers of service range %q: %w", r.Name, err)
	}
	return nil
}

// tell writes the condition Ready when it says something else.
func (c *Controller) tell(ctx context.Context, r *networkingv1.ServiceCIDR, status metav1.ConditionStatus, reason, message string) error {
	if have := meta.FindStatusCondition(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady); have != nil &&
		have.Status == status && have.Reason == reason && have.Message == message {
		return nil
	}
	next := r.DeepCopy()
	meta.SetStatusCondition(&next.Status.Conditions, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady,
		Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.Now()})
	_, err := client.ServiceCIDRs.UpdateStatus(ctx, c.transport, next)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of service range %q: %w", r.Name, err)
	}
	return nil
}

// needed is pure: whether the end of r would leave an address in no range. It
// would not if all of r lies in others.
func needed(r *networkingv1.ServiceCIDR, ranges []*networkingv1.ServiceCIDR, addresses []*networkingv1.IPAddress) bool {
	inOther := func(fits func(netip.Prefix) bool) bool {
		return slices.ContainsFunc(ranges, func(other *networkingv1.ServiceCIDR) bool {
			return other.Name != r.Name && slices.ContainsFunc(prefixes(other), fits)
		})
	}
	mine := prefixes(r)
	contained := !slices.ContainsFunc(mine, func(p netip.Prefix) bool {
		return !inOther(func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
	})
	if contained {
		return false
	}
	return slices.ContainsFunc(addresses, func(a *networkingv1.IPAddress) bool {
		addr, ok := ours(a)
		return ok && slices.ContainsFunc(mine, func(p netip.Prefix) bool { return p.Contains(addr) }) &&
			!inOther(func(q netip.Prefix) bool { return q.Contains(addr) })
	})
}

// ours is the address of a record that the API server keeps.
func ours(a *networkingv1.IPAddress) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(a.Name)
	return addr, err == nil && a.Labels[networkingv1.LabelManagedBy] == manager
}

func prefixes(r *networkingv1.ServiceCIDR) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range r.Spec.CIDRs {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}
