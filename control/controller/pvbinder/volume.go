package pvbinder

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/control/controller"
)

// outcome is what is true of a volume.
type outcome int

const (
	available outcome = iota // nobody's, or reserved for a claim that has not taken it
	bound
	released   // its claim has gone
	superseded // it was made for a claim that took another
	misplaced  // its claim took another
	dangling   // its claim has yet to take it
)

// judge is pure: what is true of a volume; c is the claim that it points at, nil
// when that has gone.
func judge(v *volume, c *claim) outcome {
	ref := v.Spec.ClaimRef
	switch {
	case ref == nil || ref.UID == "":
		return available
	case c == nil:
		return released
	case c.Spec.VolumeName == "":
		return dangling
	case c.Spec.VolumeName == v.Name:
		return bound
	case has(v, provisionedBy) && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return superseded
	}
	return misplaced
}

// syncVolume brings a volume's phase up to date and follows its reclaim policy.
func (c *Controller) syncVolume(ctx context.Context, v *volume) error {
	var pvc *claim
	if ref := v.Spec.ClaimRef; ref != nil && ref.UID != "" {
		var err error
		if pvc, err = c.getClaim(ctx, v); err != nil {
			return err
		}
	}
	switch judge(v, pvc) {
	case available:
		_, err := c.setVolume(ctx, v, corev1.VolumeAvailable, "")
		return err
	case bound:
		_, err := c.setVolume(ctx, v, corev1.VolumeBound, "")
		return err
	case dangling:
		if !sameMode(pvc, v) {
			c.events.Eventf(v, corev1.EventTypeWarning, "VolumeMismatch", "Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", pvc.Name)
			c.events.Eventf(pvc, corev1.EventTypeWarning, "VolumeMismatch", "Cannot bind PersistentVolume %q to requested PersistentVolumeClaim due to incompatible volumeMode.", v.Name)
			return nil
		}
		c.loop.Enqueue(controller.KeyOf(pvc))
		return nil
	case released, superseded:
		return c.release(ctx, v)
	case misplaced:
		return c.unbind(ctx, v)
	}
	return nil
}

// release says that a volume is free of its claim, and follows the policy. A
// failure that is told already stays to be seen.
func (c *Controller) release(ctx context.Context, v *volume) error {
	if v.Status.Phase != corev1.VolumeReleased && v.Status.Phase != corev1.VolumeFailed {
		var err error
		if v, err = c.setVolume(ctx, v, corev1.VolumeReleased, ""); err != nil {
			return err
		}
	}
	reason, message := reclaim(v)
	if reason == "" || v.Status.Phase == corev1.VolumeFailed {
		return nil
	}
	if _, err := c.setVolume(ctx, v, corev1.VolumeFailed, message); err != nil {
		return err
	}
	c.events.Event(v, corev1.EventTypeWarning, reason, message)
	return nil
}

// reclaim is pure: why a released volume's policy cannot be followed; "" when
// nothing is to be done here. Volumes are deleted by who provisioned them.
func reclaim(v *volume) (reason, message string) {
	if v.Annotations[migratedTo] != "" {
		return "", ""
	}
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRetain:
		return "", ""
	case corev1.PersistentVolumeReclaimRecycle:
		return "VolumeFailedRecycle", "No recycler plugin found for the volume!"
	case corev1.PersistentVolumeReclaimDelete:
		by := v.Annotations[provisionedBy]
		switch {
		case by != "" && !strings.HasPrefix(by, "kubernetes.io/"), v.Spec.CSI != nil:
			return "", ""
		case by != "":
			return "VolumeFailedDelete", "no volume plugin matched name: " + by
		}
		return "VolumeFailedDelete", fmt.Sprintf("error getting deleter volume plugin for volume %q: no deletable volume plugin matched", v.Name)
	}
	return "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy"
}

// unbind takes back what this controller did; a reservation that a person made
// stays one.
func (c *Controller) unbind(ctx context.Context, v *volume) error {
	next := v.DeepCopy()
	if has(v, boundByUs) {
		next.Spec.ClaimRef = nil
		delete(next.Annotations, boundByUs)
	} else {
		next.Spec.ClaimRef.UID = ""
	}
	made, err := c.updateVolume(ctx, next)
	if err != nil {
		return err
	}
	_, err = c.setVolume(ctx, made, corev1.VolumeAvailable, "")
	return err
}
