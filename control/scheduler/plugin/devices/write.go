package devices

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/scheduler"
	"github.com/sampan-dev/sampan/internal/target"
)

// maxConflicts bounds how often a claim is written that others write too.
const maxConflicts = 5

// write makes a claim the pod's, with its devices if they are new.
func (r *reservation) write(ctx context.Context, t client.Transport, g *getting) error {
	if g.extended {
		made := g.claim.DeepCopy()
		made.Name, made.UID, made.Status = "", "", resourcev1.ResourceClaimStatus{}
		made, err := client.ResourceClaims.Create(ctx, t, made)
		if err != nil {
			return fmt.Errorf("create claim for extended resources %s/%s: %w", r.pod.Namespace, g.claim.GenerateName, err)
		}
		g.claim, g.written = made, true
	}
	for attempt := 1; ; attempt++ {
		err := r.writeOnce(ctx, t, g)
		if err == nil {
			break
		}
		if !apierrors.IsConflict(err) || attempt == maxConflicts {
			return err
		}
		now, err := client.ResourceClaims.Get(ctx, t, g.claim.Namespace, g.claim.Name)
		if err != nil {
			return fmt.Errorf("get updated claim %s/%s after conflict: %w", g.claim.Namespace, g.claim.Name, err)
		}
		if now.UID != g.claim.UID {
			return fmt.Errorf("claim %s/%s got replaced in the meantime", g.claim.Namespace, g.claim.Name)
		}
		g.claim = now
	}
	if g.extended {
		return r.tell(ctx, t, g)
	}
	return nil
}

// writeOnce writes the finalizer, then devices and pod.
func (r *reservation) writeOnce(ctx context.Context, t client.Transport, g *getting) error {
	name := g.claim.Namespace + "/" + g.claim.Name
	if g.claim.DeletionTimestamp != nil {
		return fmt.Errorf("claim %s got deleted in the meantime", name)
	}
	doing := "add reservation to claim"
	next := g.claim.DeepCopy()
	if g.allocation != nil {
		doing = "add allocation and reservation to claim"
		if next.Status.Allocation != nil {
			return fmt.Errorf("claim %s got allocated elsewhere in the meantime", name)
		}
		if !slices.Contains(next.Finalizers, resourcev1.Finalizer) {
			next.Finalizers = append(next.Finalizers, resourcev1.Finalizer)
			made, err := client.ResourceClaims.Update(ctx, t, next)
			if err != nil {
				return fmt.Errorf("add finalizer to claim %s: %w", name, err)
			}
			g.claim, next = made, made.DeepCopy()
		}
		next.Status.Allocation = g.allocation.DeepCopy()
	}
	if next.Status.Allocation == nil {
		return fmt.Errorf("claim %s got deallocated elsewhere in the meantime", name)
	}
	if !resourceclaim.IsReservedForPod(r.pod, next, false) {
		next.Status.ReservedFor = append(next.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{
			Resource: "pods", Name: r.pod.Name, UID: r.pod.UID,
		})
	}
	if next.Status.Allocation.AllocationTimestamp == nil {
		next.Status.Allocation.AllocationTimestamp = new(metav1.Now())
	}
	made, err := client.ResourceClaims.UpdateStatus(ctx, t, next)
	if err != nil {
		return fmt.Errorf("%s %s: %w", doing, name, err)
	}
	g.claim, g.written = made, true
	return nil
}

// tell writes into the pod's status which of its requests are which devices.
func (r *reservation) tell(ctx context.Context, t client.Transport, g *getting) error {
	status := corev1.PodExtendedResourceClaimStatus{ResourceClaimName: g.claim.Name, RequestMappings: g.mappings}
	raw, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": r.pod.UID}, "status": map[string]any{"extendedResourceClaimStatus": status},
	})
	if err != nil {
		return fmt.Errorf("encode status of pod %s/%s: %w", r.pod.Namespace, r.pod.Name, err)
	}
	at := target.Of(client.Pods.GroupVersionResource, r.pod.Namespace).Object(r.pod.Name).Sub("status")
	if _, err := client.Pods.Patch(ctx, t, at, client.Patch{Type: types.StrategicMergePatchType, Data: raw}); err != nil {
		return fmt.Errorf("update pod %s/%s ExtendedResourceClaimStatus: %w", r.pod.Namespace, r.pod.Name, err)
	}
	return nil
}

// Undo implements scheduler.Reservation: the pod uses its claims no more, and the
// claim that was made for it goes. Failure is silent: the pod's next attempt, and
// the controller of claims, do the same again.
func (r *reservation) Undo(ctx context.Context, h scheduler.Hand) {
	for _, g := range r.claims {
		switch {
		case g.extended && g.written:
			if discard(ctx, h, g.claim) == nil {
				g.claim = nil
			}
		case !g.extended && g.claim.Status.Allocation != nil && resourceclaim.IsReservedForPod(r.pod, g.claim, false):
			raw := fmt.Sprintf(`{"metadata":{"uid":%q},"status":{"reservedFor":[{"$patch":"delete","uid":%q}]}}`, g.claim.UID, r.pod.UID)
			at := target.Of(client.ResourceClaims.GroupVersionResource, g.claim.Namespace).Object(g.claim.Name).Sub("status")
			now, err := client.ResourceClaims.Patch(ctx, h, at, client.Patch{Type: types.StrategicMergePatchType, Data: []byte(raw)})
			if err == nil {
				g.claim, g.written = now, true
			}
		}
	}
}

// discard deletes a claim that the scheduler has made, finalizer and all.
func discard(ctx context.Context, t client.Transport, c *resourcev1.ResourceClaim) error {
	for range maxConflicts {
		if at := slices.Index(c.Finalizers, resourcev1.Finalizer); at >= 0 {
			next := c.DeepCopy()
			next.Finalizers = slices.Delete(next.Finalizers, at, at+1)
			_, err := client.ResourceClaims.Update(ctx, t, next)
			if apierrors.IsConflict(err) {
				now, err := client.ResourceClaims.Get(ctx, t, c.Namespace, c.Name)
				if err != nil {
					return missing(err)
				}
				c = now
				continue
			}
			if err != nil {
				return missing(fmt.Errorf("update resourceclaim %s/%s: %w", c.Namespace, c.Name, err))
			}
		}
		return missing(client.ResourceClaims.Delete(ctx, t, c.Namespace, c.Name, metav1.DeleteOptions{
			Preconditions: metav1.NewUIDPreconditions(string(c.UID)),
		}))
	}
	return fmt.Errorf("resourceclaim %s/%s: others write it all the time", c.Namespace, c.Name)
}

// missing forgives that a claim is there no more.
func missing(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
