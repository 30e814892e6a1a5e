package devices

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/control/scheduler/device"
)

// reservation is the claims that a pod is getting.
type reservation struct {
	plugin *Plugin
	ledger *device.Ledger
	pod    *corev1.Pod
	node   string
	claims []*getting
}

// getting is one claim on its way to its pod.
type getting struct {
	// claim is as the server has it, once it has been written.
	claim *resourcev1.ResourceClaim
	// allocation is yet to be written; nil when the claim has its devices.
	allocation *resourcev1.AllocationResult
	// promised is by what name the ledger knows the allocation.
	promised types.UID
	// extended: the claim is made for the pod, for these requests of its containers.
	extended bool
	mappings []corev1.ContainerExtendedResourceRequest
	// written: the server has something of it.
	written bool
}

// Reserve implements scheduler.Reserver: the devices that were found are the pod's.
func (p *Plugin) Reserve(pod *corev1.Pod, n *scheduler.Node, v scheduler.View) (scheduler.Reservation, error) {
	a := p.now
	if a == nil || a.pod != pod || len(a.claims) == 0 {
		return nil, nil
	}
	r := &reservation{plugin: p, ledger: v.Devices(), pod: pod, node: n.Name}
	place := a.nodes[n.Name]
	if place == nil {
		if a.allocator != nil && slices.ContainsFunc(a.claims, func(w *wanted) bool {
			return w.Status.Allocation == nil && w.ResourceClaim != a.template
		}) {
			return nil, fmt.Errorf("claim allocation not found for node %q", n.Name)
		}
		place = &placement{}
	}
	for _, w := range a.claims {
		if w.Status.Allocation != nil {
			r.claims = append(r.claims, &getting{claim: w.ResourceClaim})
		}
	}
	for i, c := range place.claims {
		g := &getting{claim: c, allocation: &place.results[i], promised: c.UID}
		if c == place.extended {
			g.extended, g.mappings = true, place.mappings
		}
		r.claims = append(r.claims, g)
		promise := c.DeepCopy()
		if !slices.Contains(promise.Finalizers, resourcev1.Finalizer) {
			promise.Finalizers = append(promise.Finalizers, resourcev1.Finalizer)
		}
		promise.Status.Allocation = g.allocation
		v.Devices().Promise(promise)
	}
	if len(r.claims) == 0 {
		return nil, nil
	}
	return r, nil
}

// Prepare implements scheduler.Reservation: it writes who has which devices, and
// waits until they are ready for the pod.
func (r *reservation) Prepare(ctx context.Context, h scheduler.Hand) error {
	for _, g := range r.claims {
		if resourceclaim.IsReservedForPod(r.pod, g.claim, false) {
			continue
		}
		if err := r.write(ctx, h, g); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(r.claims, func(g *getting) bool { return conditional(g.claim) }) {
		return nil
	}
	h.Event(corev1.EventTypeNormal, "BindingConditionsPending", "waiting for binding conditions for device on node "+r.node)
	for _, g := range r.claims {
		if !conditional(g.claim) {
			continue
		}
		now, err := r.plugin.await(ctx, h, g.claim)
		if g.claim = now; err != nil {
			return err
		}
	}
	return nil
}

// Keep implements scheduler.Reservation: the claims say themselves what is taken.
func (r *reservation) Keep() { r.settle() }

// Release implements scheduler.Reservation. What has been written stays written: a
// claim without users is freed by its controller, or by a later attempt.
func (r *reservation) Release() { r.settle() }

// settle ends the promises, after the ledger has been told what has become of them:
// at no time in between are the devices free.
func (r *reservation) settle() {
	for _, g := range r.claims {
		if g.written && g.claim != nil {
			r.ledger.Assume(g.claim)
		}
		if g.promised != "" {
			r.ledger.Withdraw(g.promised)
		}
	}
}
