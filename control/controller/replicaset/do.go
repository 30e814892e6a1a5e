package replicaset

import (
	"context"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/reconcile"
)

// do carries out p.
func (c *Controller) do(ctx context.Context, key reconcile.Key, rs *appsv1.ReplicaSet, p plan) error {
	if p.create > 0 || len(p.delete) > 0 {
		c.log.Debug("replica set off its mark", "key", key, "reason", p.reason)
	}
	if err := c.createAll(ctx, key, rs, p.create); err != nil {
		return err
	}
	errs := make([]error, len(p.delete))
	var all sync.WaitGroup
	for i, pod := range p.delete {
		all.Go(func() { errs[i] = c.remove(ctx, key, rs, pod) })
	}
	all.Wait()
	return first(errs)
}

// createAll makes n pods in batches that double: when the first fails because of
// a quota, hundreds of others need not be tried.
func (c *Controller) createAll(ctx context.Context, key reconcile.Key, rs *appsv1.ReplicaSet, n int) error {
	for batch := 1; n > 0; batch *= 2 {
		batch = min(batch, n)
		errs := make([]error, batch)
		var all sync.WaitGroup
		for i := range batch {
			all.Go(func() { errs[i] = c.create(ctx, key, rs) })
		}
		all.Wait()
		if err := first(errs); err != nil {
			return err
		}
		n -= batch
	}
	return nil
}

func (c *Controller) create(ctx context.Context, key reconcile.Key, rs *appsv1.ReplicaSet) error {
	pod, err := client.Pods.Create(ctx, c.transport, podOf(rs))
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), apierrors.IsNotFound(err):
		return nil // the namespace goes, or is gone: nothing that we make would live
	case err != nil:
		c.events.Eventf(rs, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		return err
	}
	c.own.Created(key, pod)
	c.events.Eventf(rs, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", pod.Name)
	return nil
}

func (c *Controller) remove(ctx context.Context, key reconcile.Key, rs *appsv1.ReplicaSet, pod *corev1.Pod) error {
	same := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}}
	err := client.Pods.Delete(ctx, c.transport, pod.Namespace, pod.Name, same)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // gone, or another pod of that name
		return nil
	case err != nil:
		c.events.Eventf(rs, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		return fmt.Errorf("unable to delete pods: %w", err)
	}
	c.own.Deleted(key, pod)
	c.events.Eventf(rs, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
	return nil
}

// podOf is a pod as the set's template describes it.
func podOf(rs *appsv1.ReplicaSet) *corev1.Pod {
	template := rs.Spec.Template.DeepCopy()
	prefix := rs.Name + "-"
	if len(validation.IsDNS1123Subdomain(prefix+"x")) > 0 {
		prefix = rs.Name
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       rs.Namespace,
			GenerateName:    prefix,
			Labels:          template.Labels,
			Annotations:     template.Annotations,
			Finalizers:      template.Finalizers,
			OwnerReferences: []metav1.OwnerReference{client.ReplicaSets.Owner(rs)},
		},
		Spec: template.Spec,
	}
}

// first returns the first error; the others are likely to say the same.
func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
