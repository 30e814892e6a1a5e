package register

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// lease is the node's lease as last written; nil before.
type lease struct{ object *coordinationv1.Lease }

// renew writes the lease's time, in one write as long as nobody else touches it.
func (r *Registrar) renew(ctx context.Context) error {
	if r.lease.object != nil {
		next := r.lease.object.DeepCopy()
		next.Spec.RenewTime = now()
		got, err := client.Leases.Update(ctx, r.cfg.Transport, next)
		if err == nil {
			r.lease.object = got
			return nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			// It is as we know it, or a conflict will tell: a server that is too busy
			// for one write isn't asked to read, too.
			return fmt.Errorf("update lease: %w", err)
		}
		r.lease.object = nil
	}
	return r.obtain(ctx)
}

func (r *Registrar) obtain(ctx context.Context) error {
	have, err := client.Leases.Get(ctx, r.cfg.Transport, corev1.NamespaceNodeLease, r.cfg.NodeName)
	if apierrors.IsNotFound(err) {
		have, err = client.Leases.Create(ctx, r.cfg.Transport, r.newLease())
	}
	if err != nil {
		return fmt.Errorf("obtain lease: %w", err)
	}
	next := have.DeepCopy()
	next.Spec = r.newLease().Spec
	if r.lease.object, err = client.Leases.Update(ctx, r.cfg.Transport, next); err != nil {
		r.lease.object = nil
		return fmt.Errorf("take lease: %w", err)
	}
	return nil
}

func (r *Registrar) newLease() *coordinationv1.Lease {
	holder, length := r.cfg.NodeName, r.cfg.LeaseSeconds
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: r.cfg.NodeName, Namespace: corev1.NamespaceNodeLease},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &length, RenewTime: now()},
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen != nil {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: r.seen.Name, UID: r.seen.UID}}
	}
	return l
}

func now() *metav1.MicroTime {
	t := metav1.NewMicroTime(time.Now())
	return &t
}
