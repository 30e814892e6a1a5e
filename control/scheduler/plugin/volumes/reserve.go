package volumes

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/scheduler"
)

// reservation is the volumes that a pod is getting.
type reservation struct {
	plan
	node    string
	timeout time.Duration
	from    *Binding
}

// Reserve implements scheduler.Reserver: the chosen volumes are nobody else's.
func (b *Binding) Reserve(pod *corev1.Pod, n *scheduler.Node, v scheduler.View) (scheduler.Reservation, error) {
	mine := claims(pod, v.Storage())
	if len(mine) == 0 {
		return nil, nil
	}
	p, why := b.plan(mine, n, v.Storage())
	if why.Refuses() {
		return nil, fmt.Errorf("node %q: %s", n.Name, why.Text)
	}
	if len(p.match)+len(p.provision) == 0 {
		return nil, nil
	}
	for _, m := range p.match {
		b.taken[m.volume.Name] = m.claim.Namespace + "/" + m.claim.Name
	}
	return &reservation{plan: p, node: n.Name, timeout: b.timeout, from: b}, nil
}

// Release implements scheduler.Reservation.
func (r *reservation) Release() {
	for _, m := range r.match {
		delete(r.from.taken, m.volume.Name)
	}
}

// Keep implements scheduler.Reservation: the volumes say themselves whose they are.
func (r *reservation) Keep() { r.Release() }

// Undo implements scheduler.Reservation. What the binder has been asked for stays:
// the next attempt finds it, and a node that was chosen for provisioning is the
// provisioner's to reject.
func (r *reservation) Undo(context.Context, scheduler.Hand) {}

// Prepare implements scheduler.Reservation: it gives the volumes to the claims and
// has the missing ones made for the node, and waits until all claims are bound.
func (r *reservation) Prepare(ctx context.Context, t scheduler.Hand) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var pending []*corev1.PersistentVolumeClaim
	for _, m := range r.match {
		if err := give(ctx, t, m); err != nil {
			return err
		}
		pending = append(pending, m.claim)
	}
	for _, p := range r.provision {
		claim := p.claim
		if claim.Annotations[annSelectedNode] != r.node {
			next := claim.DeepCopy()
			metav1.SetMetaDataAnnotation(&next.ObjectMeta, annSelectedNode, r.node)
			if _, err := client.PersistentVolumeClaims.Update(ctx, t, next); err != nil {
				return fmt.Errorf("select node %q for claim %q: %w", r.node, claim.Name, err)
			}
		}
		pending = append(pending, claim)
	}
	for i, claim := range pending {
		if err := r.await(ctx, t, claim, i >= len(r.match)); err != nil {
			return err
		}
	}
	return nil
}

// give writes a claim into a volume; the binder does the rest.
func give(ctx context.Context, t client.Transport, m match) error {
	if ref := m.volume.Spec.ClaimRef; ref != nil && ref.UID == m.claim.UID {
		return nil
	}
	next := m.volume.DeepCopy()
	if next.Spec.ClaimRef == nil {
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, annBoundByController, "yes")
	}
	next.Spec.ClaimRef = &corev1.ObjectReference{
		Kind: "PersistentVolumeClaim", APIVersion: "v1",
		Namespace: m.claim.Namespace, Name: m.claim.Name, UID: m.claim.UID, ResourceVersion: m.claim.ResourceVersion,
	}
	if _, err := client.PersistentVolumes.Update(ctx, t, next); err != nil {
		return fmt.Errorf("bind volume %q to claim %q: %w", next.Name, m.claim.Name, err)
	}
	return nil
}

// await waits until a claim is bound. A provisioner that gives up takes the chosen
// node away.
func (r *reservation) await(ctx context.Context, t client.Transport, claim *corev1.PersistentVolumeClaim, provisioned bool) error {
	w, err := client.PersistentVolumeClaims.Watch(ctx, t, claim.Namespace, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", claim.Name).String(),
	})
	if err != nil {
		return fmt.Errorf("watch claim %q: %w", claim.Name, err)
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return fmt.Errorf("claim %q: the watch ended before it was bound", claim.Name)
			}
			now, is := e.Object.(*corev1.PersistentVolumeClaim)
			if !is {
				continue
			}
			switch {
			case e.Type == watch.Deleted || now.UID != claim.UID:
				return fmt.Errorf("claim %q is gone", claim.Name)
			case bound(now):
				return nil
			case provisioned && now.Annotations[annSelectedNode] != r.node && now.ResourceVersion != claim.ResourceVersion:
				return fmt.Errorf("provisioning failed for PVC %q", claim.Name)
			}
		case <-ctx.Done():
			return fmt.Errorf("binding volumes: claim %q: %w", claim.Name, context.Cause(ctx))
		}
	}
}

func size(claim *corev1.PersistentVolumeClaim) *resource.Quantity {
	return claim.Spec.Resources.Requests.Storage()
}

func capacity(pv *corev1.PersistentVolume) *resource.Quantity { return pv.Spec.Capacity.Storage() }
