package pvbinder

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
)

// syncWaiting looks for the volume of a claim that has never been bound.
func (c *Controller) syncWaiting(ctx context.Context, pvc *claim) error {
	if pvc.Spec.VolumeName != "" {
		return c.syncNamed(ctx, pvc)
	}
	class, _ := c.classes.Get("", classOf(pvc))
	wait := delayed(class)
	v, err := best(pvc, c.volumes.List(), wait)
	if err != nil {
		return fmt.Errorf("error finding PV for claim %q: %w", controller.KeyOf(pvc), err)
	}
	if v != nil {
		return c.bind(ctx, v, pvc)
	}
	if given, err := c.giveClass(ctx, pvc); given || err != nil {
		return err
	}
	switch {
	case wait && !has(pvc, selectedNode):
		c.tellConsumer(pvc)
	case classOf(pvc) != "":
		return c.provision(ctx, pvc)
	default:
		c.events.Event(pvc, corev1.EventTypeNormal, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	}
	_, err = c.setClaim(ctx, pvc, corev1.ClaimPending, nil)
	return err
}

// giveClass gives a claim that asks for no class in particular the default one.
func (c *Controller) giveClass(ctx context.Context, pvc *claim) (bool, error) {
	if pvc.Spec.StorageClassName != nil || has(pvc, betaClass) {
		return false, nil
	}
	class := usual(c.classes.List())
	if class == nil {
		return false, nil
	}
	next := pvc.DeepCopy()
	next.Spec.StorageClassName = &class.Name
	if _, err := c.updateClaim(ctx, next); err != nil {
		return false, fmt.Errorf("can't update PersistentVolumeClaim[%q]: %w", controller.KeyOf(pvc), err)
	}
	return true, nil
}

// tellConsumer says what a claim waits for: a pod, or a pod's node.
func (c *Controller) tellConsumer(pvc *claim) {
	var names []string
	for _, pod := range c.pods.ByIndex(byClaim, pvc.Namespace+"/"+pvc.Name) {
		if pod.Spec.NodeName == "" && !controller.Ended(pod) {
			names = append(names, pod.Name)
		}
	}
	reason, message := "WaitForFirstConsumer", "waiting for first consumer to be created before binding"
	switch len(names) {
	case 0:
	case 1:
		reason, message = "WaitForPodScheduled", fmt.Sprintf("waiting for pod %s to be scheduled", names[0])
	default:
		reason, message = "WaitForPodScheduled", fmt.Sprintf("waiting for pods %s to be scheduled", strings.Join(names, ","))
	}
	c.events.Event(pvc, corev1.EventTypeNormal, reason, message)
}

// provision asks the class's provisioner for a volume.
func (c *Controller) provision(ctx context.Context, pvc *claim) error {
	class, ok := c.classes.Get("", classOf(pvc))
	if !ok {
		err := apierrors.NewNotFound(client.StorageClasses.GroupResource(), classOf(pvc))
		err.ErrStatus.Message = fmt.Sprintf("storageclass.storage.k8s.io %q not found", classOf(pvc)) // as upstream's lister puts it
		c.events.Event(pvc, corev1.EventTypeWarning, "ProvisioningFailed", err.Error())
		return nil // a class that comes brings the claim back
	}
	name := external(class.Provisioner)
	if name == "" {
		c.events.Event(pvc, corev1.EventTypeWarning, "ProvisioningFailed", "no volume plugin matched name: "+class.Provisioner)
		return nil
	}
	if pvc.Annotations[provisioner] != name || pvc.Annotations[betaProvisioner] != name {
		next := pvc.DeepCopy()
		annotate(&next.ObjectMeta, betaProvisioner, name)
		annotate(&next.ObjectMeta, provisioner, name)
		made, err := c.updateClaim(ctx, next)
		if err != nil {
			c.events.Eventf(pvc, corev1.EventTypeWarning, "ProvisioningFailed", "Error saving claim: %v", err)
			return err
		}
		pvc = made
	}
	c.events.Eventf(pvc, corev1.EventTypeNormal, "ExternalProvisioning", "Waiting for a volume to be created either by the external provisioner '%s' "+
		"or manually by the system administrator. If volume creation is delayed, please verify that "+
		"the provisioner is running and correctly registered.", name)
	return nil
}

// syncNamed is for a claim that wants one volume and no other.
func (c *Controller) syncNamed(ctx context.Context, pvc *claim) error {
	v, ok := c.volumes.Get("", pvc.Spec.VolumeName)
	switch {
	case !ok:
		// It may come.
	case pointsAt(v, pvc):
		return c.bind(ctx, v, pvc)
	case v.Spec.ClaimRef == nil:
		err := unfit(v, pvc)
		if err == nil {
			return c.bind(ctx, v, pvc)
		}
		c.events.Eventf(pvc, corev1.EventTypeWarning, "VolumeMismatch", "Cannot bind to requested volume %q: %s", v.Name, err)
	default:
		c.events.Eventf(pvc, corev1.EventTypeWarning, "FailedBinding", "volume %q already bound to a different claim.", v.Name)
		if has(pvc, boundByUs) {
			return fmt.Errorf("invalid binding of claim %q to volume %q: volume already claimed by \"%s/%s\"", controller.KeyOf(pvc), v.Name, v.Spec.ClaimRef.Namespace, v.Spec.ClaimRef.Name)
		}
	}
	_, err := c.setClaim(ctx, pvc, corev1.ClaimPending, nil)
	return err
}

// syncBound looks after a claim that has been bound: what is lost stays lost.
func (c *Controller) syncBound(ctx context.Context, pvc *claim) error {
	if pvc.Spec.VolumeName == "" {
		return c.lose(ctx, pvc, "ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	}
	v, ok := c.volumes.Get("", pvc.Spec.VolumeName)
	if !ok {
		live, err := client.PersistentVolumes.Get(ctx, c.transport, "", pvc.Spec.VolumeName)
		if apierrors.IsNotFound(err) {
			return c.lose(ctx, pvc, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
		}
		if err != nil {
			return fmt.Errorf("get volume %q: %w", pvc.Spec.VolumeName, err)
		}
		v = live
	}
	if v.Spec.ClaimRef != nil && v.Spec.ClaimRef.UID != pvc.UID {
		return c.lose(ctx, pvc, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
	}
	return c.bind(ctx, v, pvc)
}

func (c *Controller) lose(ctx context.Context, pvc *claim, reason, message string) error {
	if pvc.Status.Phase == corev1.ClaimLost {
		return nil
	}
	if _, err := c.setClaim(ctx, pvc, corev1.ClaimLost, nil); err != nil {
		return err
	}
	c.events.Event(pvc, corev1.EventTypeWarning, reason, message)
	return nil
}
