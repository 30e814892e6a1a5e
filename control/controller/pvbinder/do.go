package pvbinder

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
)

// bind makes volume and claim point at each other and say so, in this order: the
// volume, its phase, the claim, its status. What is so already is not written.
func (c *Controller) bind(ctx context.Context, v *volume, pvc *claim) error {
	var err error
	if next, changed := towards(v, pvc); changed {
		if v, err = c.updateVolume(ctx, next); err != nil {
			return fmt.Errorf("bind volume %q to claim %q: %w", next.Name, controller.KeyOf(pvc), err)
		}
	}
	if v, err = c.setVolume(ctx, v, corev1.VolumeBound, ""); err != nil {
		return err
	}
	if pvc.Spec.VolumeName != v.Name || !completed(pvc) {
		next := pvc.DeepCopy()
		if next.Spec.VolumeName != v.Name {
			next.Spec.VolumeName = v.Name
			if !has(next, boundByUs) {
				annotate(&next.ObjectMeta, boundByUs, "yes")
			}
		}
		annotate(&next.ObjectMeta, bindCompleted, "yes")
		if pvc, err = c.updateClaim(ctx, next); err != nil {
			return fmt.Errorf("bind claim %q to volume %q: %w", controller.KeyOf(next), v.Name, err)
		}
	}
	_, err = c.setClaim(ctx, pvc, corev1.ClaimBound, v)
	return err
}

// towards is v bound to a claim; changed says whether it was not.
func towards(v *volume, pvc *claim) (next *volume, changed bool) {
	next = v.DeepCopy()
	if ref := v.Spec.ClaimRef; ref == nil || ref.Name != pvc.Name || ref.Namespace != pvc.Namespace || ref.UID != pvc.UID {
		to := client.Reference(pvc)
		next.Spec.ClaimRef, changed = &to, true
	}
	if !pointsAt(v, pvc) && !has(v, boundByUs) {
		annotate(&next.ObjectMeta, boundByUs, "yes")
		changed = true
	}
	return next, changed
}

// setVolume writes a volume's phase if it is another.
func (c *Controller) setVolume(ctx context.Context, v *volume, phase corev1.PersistentVolumePhase, message string) (*volume, error) {
	if v.Status.Phase == phase {
		return v, nil
	}
	next := v.DeepCopy()
	next.Status.Phase, next.Status.Message = phase, message
	made, err := client.PersistentVolumes.UpdateStatus(ctx, c.transport, next)
	if err != nil {
		return nil, fmt.Errorf("make volume %q %s: %w", v.Name, phase, err)
	}
	c.ownPVs.Wrote(controller.KeyOf(v), made)
	return made, nil
}

// setClaim writes a claim's phase, and what it has got of v; nil: nothing.
func (c *Controller) setClaim(ctx context.Context, pvc *claim, phase corev1.PersistentVolumeClaimPhase, v *volume) (*claim, error) {
	next := pvc.DeepCopy()
	s := &next.Status
	s.Phase = phase
	if v == nil {
		s.AccessModes, s.Capacity, s.CurrentVolumeAttributesClassName = nil, nil, nil
	} else {
		s.AccessModes = v.Spec.AccessModes
		// Only on the way to bound: afterwards a smaller capacity than the volume's
		// means that the file system has yet to grow.
		if pvc.Status.Phase != phase {
			if err := setCapacity(s, v); err != nil {
				return nil, err
			}
		}
		if pvc.Status.Phase == corev1.ClaimPending && phase == corev1.ClaimBound {
			s.CurrentVolumeAttributesClassName = v.Spec.VolumeAttributesClassName
		}
	}
	if equality.Semantic.DeepEqual(pvc.Status, next.Status) {
		return pvc, nil
	}
	made, err := client.PersistentVolumeClaims.UpdateStatus(ctx, c.transport, next)
	if err != nil {
		return nil, fmt.Errorf("make claim %q %s: %w", controller.KeyOf(pvc), phase, err)
	}
	c.ownClaims.Wrote(controller.KeyOf(pvc), made)
	return made, nil
}

// setCapacity takes over the volume's capacity; of one that has grown below a file
// system that has not, what it was.
func setCapacity(s *corev1.PersistentVolumeClaimStatus, v *volume) error {
	size, ok := v.Spec.Capacity[corev1.ResourceStorage]
	if !ok {
		return fmt.Errorf("PersistentVolume %q is without a storage capacity", v.Name)
	}
	if text, ok := v.Annotations[preResize]; ok {
		if was, err := resource.ParseQuantity(text); err == nil {
			size = was
		}
		s.Capacity = maps.Clone(s.Capacity)
		if s.Capacity == nil {
			s.Capacity = corev1.ResourceList{}
		}
		s.Capacity[corev1.ResourceStorage] = size
		return nil
	}
	if have, ok := s.Capacity[corev1.ResourceStorage]; !ok || have.Cmp(size) != 0 {
		s.Capacity = v.Spec.Capacity
	}
	return nil
}

func (c *Controller) updateVolume(ctx context.Context, next *volume) (*volume, error) {
	made, err := client.PersistentVolumes.Update(ctx, c.transport, next)
	if err == nil {
		c.ownPVs.Wrote(controller.KeyOf(next), made)
	}
	return made, err
}

func (c *Controller) updateClaim(ctx context.Context, next *claim) (*claim, error) {
	made, err := client.PersistentVolumeClaims.Update(ctx, c.transport, next)
	if err == nil {
		c.ownClaims.Wrote(controller.KeyOf(next), made)
	}
	return made, err
}

func annotate(m *metav1.ObjectMeta, key, value string) {
	m.Annotations = maps.Clone(m.Annotations)
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[key] = value
}
