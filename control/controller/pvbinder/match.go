package pvbinder

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// The annotations that provisioners, the scheduler and people share.
const (
	bindCompleted   = "pv.kubernetes.io/bind-completed"
	boundByUs       = "pv.kubernetes.io/bound-by-controller"
	provisionedBy   = "pv.kubernetes.io/provisioned-by"
	migratedTo      = "pv.kubernetes.io/migrated-to"
	selectedNode    = "volume.kubernetes.io/selected-node"
	provisioner     = "volume.kubernetes.io/storage-provisioner"
	betaProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	betaClass       = "volume.beta.kubernetes.io/storage-class"
	defaultClass    = "storageclass.kubernetes.io/is-default-class"
	betaDefault     = "storageclass.beta.kubernetes.io/is-default-class"
	preResize       = "volume.alpha.kubernetes.io/pre-resize-capacity"
)

func has(o metav1.Object, annotation string) bool {
	_, ok := o.GetAnnotations()[annotation]
	return ok
}

// completed says whether a claim has been bound once.
func completed(c *claim) bool { return has(c, bindCompleted) }

// classOf is the class that a claim asks for; "" is none.
func classOf(c *claim) string {
	if name, ok := c.Annotations[betaClass]; ok {
		return name
	}
	if c.Spec.StorageClassName != nil {
		return *c.Spec.StorageClassName
	}
	return ""
}

func classOfVolume(v *volume) string {
	if name, ok := v.Annotations[betaClass]; ok {
		return name
	}
	return v.Spec.StorageClassName
}

// pointsAt says whether a volume is reserved for or bound to a claim.
func pointsAt(v *volume, c *claim) bool {
	ref := v.Spec.ClaimRef
	return ref != nil && ref.Name == c.Name && ref.Namespace == c.Namespace && (ref.UID == "" || ref.UID == c.UID)
}

func modeOf(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	if m == nil {
		return corev1.PersistentVolumeFilesystem
	}
	return *m
}

func sameMode(c *claim, v *volume) bool {
	return modeOf(c.Spec.VolumeMode) == modeOf(v.Spec.VolumeMode)
}

func sameAttributes(c *claim, v *volume) bool {
	return deref(c.Spec.VolumeAttributesClassName) == deref(v.Spec.VolumeAttributesClassName)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// offers says whether a volume can be used in all ways that a claim asks for.
func offers(v *volume, c *claim) bool {
	return !slices.ContainsFunc(c.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool { return !slices.Contains(v.Spec.AccessModes, m) })
}

// smaller says whether a volume has less than a claim asks for.
func smaller(v *volume, c *claim) bool {
	have, want := v.Spec.Capacity[corev1.ResourceStorage], c.Spec.Resources.Requests[corev1.ResourceStorage]
	return have.Cmp(want) < 0
}

// unfit says why a volume that a claim names cannot be its.
func unfit(v *volume, c *claim) error {
	switch {
	case v.DeletionTimestamp != nil:
		return fmt.Errorf("the volume is marked for deletion %q", v.Name)
	case smaller(v, c):
		return errors.New("requested PV is too small")
	case classOfVolume(v) != classOf(c):
		return errors.New("storageClassName does not match")
	case !sameAttributes(c, v):
		return errors.New("volumeAttributesClassName does not match")
	case !sameMode(c, v):
		return errors.New("incompatible volumeMode")
	case !offers(v, c):
		return errors.New("incompatible accessMode")
	}
	return nil
}

// best is pure: the volume for a claim, nil for none. One that is reserved for the
// claim comes first; else the smallest that fits, of those that can be used in the
// fewest ways. A claim that waits for its consumer is only given what is reserved
// for it: the scheduler chooses.
func best(c *claim, volumes []*volume, delayed bool) (*volume, error) {
	selector := labels.Everything()
	if c.Spec.Selector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(c.Spec.Selector); err != nil {
			return nil, fmt.Errorf("error creating internal label selector for claim: %s/%s: %w", c.Namespace, c.Name, err)
		}
	}
	var found []*volume
	for _, v := range volumes {
		if v.Spec.ClaimRef != nil && !pointsAt(v, c) || !offers(v, c) || smaller(v, c) || !sameMode(c, v) || !sameAttributes(c, v) || v.DeletionTimestamp != nil {
			continue
		}
		if pointsAt(v, c) {
			return v, nil
		}
		if !delayed && v.Status.Phase == corev1.VolumeAvailable && selector.Matches(labels.Set(v.Labels)) && classOfVolume(v) == classOf(c) {
			found = append(found, v)
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	return slices.MinFunc(found, func(a, b *volume) int {
		x, y := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
		return cmp.Or(cmp.Compare(len(a.Spec.AccessModes), len(b.Spec.AccessModes)), x.Cmp(y), strings.Compare(a.Name, b.Name))
	}), nil
}

// delayed says whether a claim's class waits for the first consumer.
func delayed(class *storagev1.StorageClass) bool {
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// usual is the default class: the newest of several, nil when there is none.
func usual(classes []*storagev1.StorageClass) *storagev1.StorageClass {
	var found []*storagev1.StorageClass
	for _, s := range classes {
		if s.Annotations[defaultClass] == "true" || s.Annotations[betaDefault] == "true" {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return slices.MinFunc(found, func(a, b *storagev1.StorageClass) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
}

// external is who provisions for a class in the cluster; "" when nobody does: of
// the drivers that were once built in, those that have moved have new names.
func external(class string) string {
	moved := map[string]string{
		"kubernetes.io/aws-ebs": "ebs.csi.aws.com", "kubernetes.io/gce-pd": "pd.csi.storage.gke.io",
		"kubernetes.io/azure-disk": "disk.csi.azure.com", "kubernetes.io/azure-file": "file.csi.azure.com",
		"kubernetes.io/cinder": "cinder.csi.openstack.org", "kubernetes.io/vsphere-volume": "csi.vsphere.vmware.com",
		"kubernetes.io/portworx-volume": "pxd.portworx.com",
	}
	if name, ok := moved[class]; ok {
		return name
	}
	if strings.HasPrefix(class, "kubernetes.io/") {
		return ""
	}
	return class
}
