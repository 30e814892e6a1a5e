package statefulset

import (
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
)

// do carries out p and stops at the first failure.
func (c *Controller) do(ctx context.Context, set *appsv1.StatefulSet, p plan) error {
	for _, phase := range p.phases {
		if p.parallel {
			if err := controller.InBatches(len(phase), func(i int) error { return c.step(ctx, set, phase[i]) }); err != nil {
				return err
			}
			continue
		}
		for _, s := range phase {
			if err := c.step(ctx, set, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Controller) step(ctx context.Context, set *appsv1.StatefulSet, s step) error {
	c.log.Debug("stateful set step", "key", controller.KeyOf(set), "verb", s.verb, "pod", s.pod.Name, "reason", s.reason)
	switch s.verb {
	case create:
		return c.create(ctx, set, s.pod)
	case remove:
		return c.remove(ctx, set, s.pod)
	case repair:
		return c.repair(ctx, set, s.pod)
	case claim:
		if err := c.makeClaims(ctx, set, s.pod); err != nil {
			return err
		}
	}
	return c.settleClaims(ctx, set, s.pod)
}

func (c *Controller) create(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	if err := c.makeClaims(ctx, set, pod); err != nil {
		c.tell(set, create, pod, err)
		return err
	}
	made, err := client.Pods.Create(ctx, c.transport, pod)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil // nothing that we make would live
	}
	if apierrors.IsAlreadyExists(err) { // one that has not gone, or is not ours
		return fmt.Errorf("create pod %q: %w", pod.Name, err)
	}
	c.tell(set, create, pod, err)
	if err != nil {
		return fmt.Errorf("create pod %q: %w", pod.Name, err)
	}
	c.ownPods.Created(controller.KeyOf(set), made)
	return nil
}

func (c *Controller) remove(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	err := client.Pods.Delete(ctx, c.transport, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // gone, or another pod of that name
		return nil
	}
	c.tell(set, remove, pod, err)
	if err != nil {
		return fmt.Errorf("delete pod %q: %w", pod.Name, err)
	}
	c.ownPods.Deleted(controller.KeyOf(set), pod)
	return nil
}

// repair puts a pod's labels and claims in order. Volumes cannot change; the
// server says so, and the event tells.
func (c *Controller) repair(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	if err := c.settleClaims(ctx, set, pod); err != nil {
		return err
	}
	if identified(pod) && attached(set, pod) {
		return nil
	}
	next := pod.DeepCopy()
	identify(next)
	if !attached(set, next) {
		attach(set, next)
		if err := c.makeClaims(ctx, set, next); err != nil {
			c.tell(set, repair, pod, err)
			return err
		}
	}
	stored, err := client.Pods.Update(ctx, c.transport, next)
	if apierrors.IsConflict(err) {
		return fmt.Errorf("update pod %q: %w", pod.Name, err)
	}
	c.tell(set, repair, pod, err)
	if err != nil {
		return fmt.Errorf("update pod %q: %w", pod.Name, err)
	}
	c.ownPods.Wrote(controller.KeyOf(set), stored)
	return nil
}

// tell records an event about what was done with a pod, in upstream's words.
func (c *Controller) tell(set *appsv1.StatefulSet, v verb, pod *corev1.Pod, err error) {
	title := strings.ToUpper(string(v[:1])) + string(v[1:])
	if err != nil {
		c.events.Eventf(set, corev1.EventTypeWarning, "Failed"+title, "%s Pod %s in StatefulSet %s failed error: %s", title, pod.Name, set.Name, err)
		return
	}
	c.events.Eventf(set, corev1.EventTypeNormal, "Successful"+title, "%s Pod %s in StatefulSet %s successful", title, pod.Name, set.Name)
}

// lookAtClaims answers view.claims from the mirror.
func (c *Controller) lookAtClaims(set *appsv1.StatefulSet, pod *corev1.Pod) (areSettled, isLeft, missing bool) {
	areSettled = true
	for i := range set.Spec.VolumeClaimTemplates {
		claim, ok := c.claims.Get(set.Namespace, claimName(set, &set.Spec.VolumeClaimTemplates[i], pod))
		if !ok {
			missing = true
			continue
		}
		if !settled(claim, set, pod) {
			areSettled = false
		}
		scaled := set.Spec.PersistentVolumeClaimRetentionPolicy
		if scaled != nil && scaled.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
			for _, ref := range claim.OwnerReferences {
				isLeft = isLeft || namesPod(&ref, pod) && ref.UID != pod.UID
			}
		}
	}
	return areSettled, isLeft, missing
}

// makeClaims makes the claims that a pod lacks.
func (c *Controller) makeClaims(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	var errs []error
	for i := range set.Spec.VolumeClaimTemplates {
		wanted := newClaim(set, &set.Spec.VolumeClaimTemplates[i], pod)
		have, ok := c.claims.Get(wanted.Namespace, wanted.Name)
		if ok {
			if have.DeletionTimestamp != nil {
				errs = append(errs, fmt.Errorf("pvc %s is being deleted", wanted.Name))
			}
			continue
		}
		made, err := client.PersistentVolumeClaims.Create(ctx, c.transport, wanted)
		switch {
		case apierrors.IsAlreadyExists(err): // the mirror is behind
			errs = append(errs, fmt.Errorf("failed to create PVC %s: %w", wanted.Name, err))
		case err != nil:
			errs = append(errs, fmt.Errorf("failed to create PVC %s: %w", wanted.Name, err))
			c.events.Eventf(set, corev1.EventTypeWarning, "FailedCreate", "Create Claim %s for Pod %s in StatefulSet %s failed error: %s", wanted.Name, pod.Name, set.Name, err)
		default:
			c.ownClaims.Created(controller.KeyOf(set), made)
			c.events.Eventf(set, corev1.EventTypeNormal, "SuccessfulCreate", "Create Claim %s Pod %s in StatefulSet %s success", wanted.Name, pod.Name, set.Name)
		}
	}
	return errors.Join(errs...)
}

// settleClaims gives a pod's claims the owners that they shall have.
func (c *Controller) settleClaims(ctx context.Context, set *appsv1.StatefulSet, pod *corev1.Pod) error {
	for i := range set.Spec.VolumeClaimTemplates {
		have, ok := c.claims.Get(set.Namespace, claimName(set, &set.Spec.VolumeClaimTemplates[i], pod))
		if !ok {
			continue
		}
		if contested(have, set, pod) {
			c.events.Eventf(set, corev1.EventTypeWarning, "ConflictingController",
				"PersistentVolumeClaim %s has a conflicting OwnerReference that acts as a managing controller, the retention policy is ignored for this claim", have.Name)
		}
		if settled(have, set, pod) {
			continue
		}
		stored, err := client.PersistentVolumeClaims.Update(ctx, c.transport, settle(have, set, pod))
		if err != nil {
			return fmt.Errorf("could not update claim %s for delete policy ownerRefs: %w", have.Name, err)
		}
		c.ownClaims.Wrote(controller.KeyOf(set), stored)
	}
	return nil
}
