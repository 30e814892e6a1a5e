package admit

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/kinds"
)

// claimResize lets a claim grow only when it is bound, and its class allows it.
type claimResize struct {
	Judging
	objects Reader
}

func (r claimResize) Validate(ctx context.Context, a *resource.Attributes) error {
	claim, ok1 := a.Object.(*corev1.PersistentVolumeClaim)
	old, ok2 := a.Old.(*corev1.PersistentVolumeClaim)
	if !ok1 || !ok2 || a.Operation != resource.OpUpdate || a.Target.Subresource != "" {
		return nil
	}
	size, was := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if size.Cmp(was) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return errors.New("Only bound persistent volume claims can be expanded") //nolint:staticcheck // upstream's sentence
	}
	if name := classOf(claim); name != "" && name == classOf(old) {
		obj, err := cached(ctx, r.objects, group(storagev1.SchemeGroupVersion, "storageclasses", "").Object(name))
		if class, ok := obj.(*storagev1.StorageClass); err == nil && ok && kinds.Deref(class.AllowVolumeExpansion) {
			return nil
		}
	}
	return errors.New("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
}

// classOf is a claim's storage class, by its old annotation first.
func classOf(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return kinds.Deref(claim.Spec.StorageClassName)
}

// volumePhases notes when the phase of a volume changed, unless its writer did.
// No kind knows the time; that is why it is done here.
type volumePhases struct {
	Changing
	now func() time.Time
}

func (r volumePhases) Admit(_ context.Context, a *resource.Attributes) error {
	v, ok1 := a.Object.(*corev1.PersistentVolume)
	old, ok2 := a.Old.(*corev1.PersistentVolume)
	if !ok1 || !ok2 || a.Operation != resource.OpUpdate || a.Target.Subresource != "status" {
		return nil
	}
	at, was := v.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime
	if v.Status.Phase != old.Status.Phase && (at == nil || at.Equal(was)) {
		now := metav1.NewTime(r.now())
		v.Status.LastPhaseTransitionTime = &now
	}
	return nil
}
