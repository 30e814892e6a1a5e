package devices

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/scheduler"
)

// Heeds implements scheduler.Filter.
func (*Plugin) Heeds() scheduler.ChangeKind {
	return scheduler.NodeAdded | scheduler.NodeLabels | scheduler.NodeAllocatable | scheduler.PodClaims |
		scheduler.DeviceClaimChanged | scheduler.DeviceClassChanged | scheduler.DeviceSliceChanged
}

// Helps implements scheduler.Filter. Of the changes of claims those help that free
// devices, and those of the pod's own.
func (*Plugin) Helps(pod *corev1.Pod, c scheduler.Change, v scheduler.View) bool {
	switch {
	case c.Old == nil && c.New == nil && c.Kind&scheduler.DevicesChanged != 0:
		return true // devices have been given back, or their taints are others
	case c.Kind == scheduler.DeviceClassChanged:
		return c.New != nil
	case c.Kind == scheduler.DeviceSliceChanged:
		return c.New != nil
	case c.Kind == scheduler.PodClaims:
		_, err := claimsOf(pod, v.Devices())
		return err == nil
	case c.Kind != scheduler.DeviceClaimChanged:
		return true
	}
	old, _ := c.Old.(*resourcev1.ResourceClaim)
	now, _ := c.New.(*resourcev1.ResourceClaim)
	if now == nil {
		return old != nil && (old.Status.Allocation != nil || madeFor(old, pod))
	}
	if old != nil && old.UID != now.UID && old.Status.Allocation != nil {
		return true // deleted and made again, while nobody looked
	}
	mine, err := claimsOf(pod, v.Devices())
	if err != nil {
		return false
	}
	if old != nil && old.Status.Allocation != nil && now.Status.Allocation == nil {
		return true
	}
	if !slices.ContainsFunc(mine, func(c *resourcev1.ResourceClaim) bool { return c.UID == now.UID }) && !madeFor(now, pod) {
		return false
	}
	return old == nil || old.UID != now.UID || !apiequality.Semantic.DeepEqual(&old.Status, &now.Status)
}

// madeFor says whether a claim stands for the pod's extended resources.
func madeFor(c *resourcev1.ResourceClaim, pod *corev1.Pod) bool {
	if c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" {
		return false
	}
	return slices.ContainsFunc(c.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == pod.UID })
}

// Remedy implements scheduler.Remedy: a claim that nobody but the pod uses gives its
// devices back when they are of no use on any node, and one that an earlier attempt
// has made goes.
func (p *Plugin) Remedy(pod *corev1.Pod, _ scheduler.View) (func(context.Context, client.Transport) error, string) {
	a := p.now
	if a == nil || a.pod != pod {
		return nil, ""
	}
	for _, i := range slices.Sorted(maps.Keys(a.unusable)) {
		c := a.claims[i].ResourceClaim
		users := c.Status.ReservedFor
		if c == a.template || len(users) > 1 || len(users) == 1 && users[0].UID != pod.UID {
			continue
		}
		return func(ctx context.Context, t client.Transport) error {
			next := c.DeepCopy()
			next.Status.ReservedFor, next.Status.Allocation, next.Status.Devices = nil, nil, nil
			_, err := client.ResourceClaims.UpdateStatus(ctx, t, next)
			return err
		}, "deallocation of ResourceClaim completed"
	}
	if left := a.template; left != nil && left.Name != inMemory {
		return func(ctx context.Context, t client.Transport) error { return discard(ctx, t, left) }, "deletion of ResourceClaim completed"
	}
	return nil, ""
}
