package deployment

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
)

// do carries out p: the sets, the deployment's revision, its status. It stops at
// the first failure; the next round decides anew.
func (c *Controller) do(ctx context.Context, d *appsv1.Deployment, p plan) error {
	for _, s := range p.steps {
		c.log.Debug("deployment step", "deployment", d.Name, "namespace", d.Namespace,
			"verb", s.verb, "set", s.set.Name, "replicas", *s.set.Spec.Replicas, "reason", s.reason)
		var err error
		switch s.verb {
		case create:
			err = c.createSet(ctx, d, s)
		case update:
			err = c.updateSet(ctx, d, s)
		case remove:
			err = client.ReplicaSets.Delete(ctx, c.transport, s.set.Namespace, s.set.Name,
				metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.set.UID}})
			if apierrors.IsNotFound(err) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("%s replica set %q: %w", s.verb, s.set.Name, err)
		}
	}
	next := d.DeepCopy()
	next.Status = p.status
	if p.revision != "" {
		next.Annotations = with(next.Annotations, revisionAnnotation, p.revision)
	}
	stored, err := c.write(ctx, d, next)
	if err != nil || p.back == nil {
		return err
	}
	return c.goBack(ctx, stored, p.back)
}

// goBack writes a deployment whose rollback has been decided, which is no longer asked
// for then.
func (c *Controller) goBack(ctx context.Context, d *appsv1.Deployment, to *rollback) error {
	if to.reason != rolledBack {
		c.events.Event(d, corev1.EventTypeWarning, to.reason, to.message)
	}
	if _, err := client.Deployments.Update(ctx, c.transport, to.apply(d)); err != nil {
		return fmt.Errorf("roll back deployment %q: %w", d.Name, err)
	}
	if to.reason == rolledBack {
		c.events.Event(d, corev1.EventTypeNormal, to.reason, to.message)
	}
	return nil
}

func (c *Controller) updateSet(ctx context.Context, d *appsv1.Deployment, s step) error {
	if _, err := client.ReplicaSets.Update(ctx, c.transport, s.set); err != nil {
		return err
	}
	if to := *s.set.Spec.Replicas; to != s.from {
		direction := "up"
		if to < s.from {
			direction = "down"
		}
		c.events.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet",
			"Scaled %s replica set %s from %d to %d", direction, s.set.Name, s.from, to)
	}
	return nil
}

func (c *Controller) createSet(ctx context.Context, d *appsv1.Deployment, s step) error {
	_, err := client.ReplicaSets.Create(ctx, c.transport, s.set)
	switch {
	case err == nil:
		if n := *s.set.Spec.Replicas; n > 0 {
			c.events.Eventf(d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", s.set.Name, n)
		}
		return nil
	case apierrors.IsAlreadyExists(err):
		return c.existing(ctx, d, s, err)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return err
	}
	message := fmt.Sprintf("Failed to create new replica set %q: %v", s.set.Name, err)
	c.events.Event(d, corev1.EventTypeWarning, "ReplicaSetCreateError", message)
	if hasDeadline(d) {
		status := d.DeepCopy().Status
		now := metav1.Now()
		setCondition(&status, appsv1.DeploymentCondition{
			Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ReplicaSetCreateError",
			Message: message, LastUpdateTime: now, LastTransitionTime: now,
		})
		_ = c.writeStatus(ctx, d, status) // the failure to create is the graver one
	}
	return err
}

// existing tells a set that the mirror has not shown yet from a collision of
// hashes, which is resolved by counting it in.
func (c *Controller) existing(ctx context.Context, d *appsv1.Deployment, s step, exists error) error {
	rs, err := client.ReplicaSets.Get(ctx, c.transport, s.set.Namespace, s.set.Name)
	if err != nil {
		return err
	}
	if metav1.IsControlledBy(rs, d) && sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
		return nil
	}
	collisions := int32(1)
	if d.Status.CollisionCount != nil {
		collisions += *d.Status.CollisionCount
	}
	status := d.DeepCopy().Status
	status.CollisionCount = &collisions
	if err := c.writeStatus(ctx, d, status); err != nil {
		return err
	}
	return exists
}
