package core

import (
	"maps"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// volumeSpecCheck is a podCheck for what a persistent volume says of itself.
func volumeSpecCheck(meta *metav1.ObjectMeta, spec *corev1.PersistentVolumeSpec, at *kinds.Path) *podCheck {
	return &podCheck{meta: meta, root: at, placed: spec.NodeAffinity != nil}
}

func validatePersistentVolume(v *corev1.PersistentVolume) field.ErrorList {
	spec, at := &v.Spec, kinds.NewPath("spec")
	c := volumeSpecCheck(&v.ObjectMeta, spec, at)
	if len(spec.AccessModes) == 0 {
		c.Required(at.Child("accessModes"), "")
	}
	validateAccessModes(&c.Faults, spec.AccessModes, at.Child("accessModes"))
	c.checkCapacity(spec.Capacity, at.Child("capacity"))
	if spec.PersistentVolumeReclaimPolicy != "" {
		kinds.OneOf(&c.Faults, at.Child("persistentVolumeReclaimPolicy"), spec.PersistentVolumeReclaimPolicy,
			corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)
	}
	c.checkVolumeAffinity(spec.NodeAffinity, at.Child("nodeAffinity"))
	c.checkPersistentSource(spec, at)
	c.subdomain(at.Child("storageClassName"), spec.StorageClassName)
	if spec.VolumeMode != nil {
		kinds.OneOf(&c.Faults, at.Child("volumeMode"), *spec.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
	c.checkAttributesClass(spec, at)
	return c.List()
}

func (c *podCheck) checkAttributesClass(spec *corev1.PersistentVolumeSpec, at *kinds.Path) {
	class := spec.VolumeAttributesClassName
	if class == nil {
		return
	}
	if *class == "" {
		c.Required(at.Child("volumeAttributesClassName"), "an empty string is disallowed")
	}
	c.subdomain(at.Child("volumeAttributesClassName"), *class)
	if spec.CSI == nil {
		c.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName")
	}
}

func (c *podCheck) checkCapacity(capacity corev1.ResourceList, at *kinds.Path) {
	if len(capacity) == 0 {
		c.Required(at, "")
	}
	if _, ok := capacity[corev1.ResourceStorage]; !ok || len(capacity) > 1 {
		c.Join(field.ErrorList{field.NotSupported(at.Field(), capacity, []corev1.ResourceName{corev1.ResourceStorage})})
	}
	for _, name := range slices.Sorted(maps.Keys(capacity)) {
		amount, here := capacity[name], at.Key(string(name))
		basicAmount(&c.Faults, amount, here)
		if amount.Sign() <= 0 {
			c.Invalid(here, amount.String(), positiveText)
		}
	}
}

func (c *podCheck) checkVolumeAffinity(affinity *corev1.VolumeNodeAffinity, at *kinds.Path) {
	switch {
	case affinity == nil:
	case affinity.Required == nil:
		c.Required(at.Child("required"), "must specify required node constraints")
	default:
		c.Join(validateNodeSelector(affinity.Required, at.Child("required")))
	}
}

// checkPersistentSource wants exactly one source, and does not let the host be wiped.
func (c *podCheck) checkPersistentSource(spec *corev1.PersistentVolumeSpec, at *kinds.Path) {
	checkSources(c, persistentChecks, &spec.PersistentVolumeSource, at)
	if spec.HostPath != nil && path.Clean(spec.HostPath.Path) == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		c.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'")
	}
}

// ValidateDriverName checks the name of a CSI driver.
func ValidateDriverName(name string, at *kinds.Path) field.ErrorList {
	return validateDriverName(name, at)
}

// ValidateInlineVolumeSpec checks a volume that is written out where it is used,
// in a VolumeAttachment: a CSI volume, and nothing that belongs to the life of a
// PersistentVolume.
func ValidateInlineVolumeSpec(spec *corev1.PersistentVolumeSpec, at *kinds.Path) field.ErrorList {
	c := &podCheck{root: at}
	c.notInline(at.Child("claimRef"), spec.ClaimRef != nil)
	c.notInline(at.Child("capacity"), len(spec.Capacity) > 0)
	if spec.CSI == nil {
		c.Required(at.Child("csi"), "has to be specified in the context of inline volumes")
	}
	if len(spec.AccessModes) == 0 {
		c.Required(at.Child("accessModes"), "")
	}
	validateAccessModes(&c.Faults, spec.AccessModes, at.Child("accessModes"))
	if p := spec.PersistentVolumeReclaimPolicy; p != "" && p != corev1.PersistentVolumeReclaimRetain {
		c.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may only be Retain in the context of inline volumes")
	}
	c.notInline(at.Child("nodeAffinity"), spec.NodeAffinity != nil)
	c.checkPersistentSource(spec, at)
	c.notInline(at.Child("storageClassName"), spec.StorageClassName != "")
	if m := spec.VolumeMode; m != nil && *m != corev1.PersistentVolumeFilesystem {
		c.Forbidden(at.Child("volumeMode"), "may not specify volumeMode other than Filesystem in the context of inline volumes")
	}
	c.checkAttributesClass(spec, at)
	return c.List()
}

func (c *podCheck) notInline(at *kinds.Path, set bool) {
	if set {
		c.Forbidden(at, "may not be specified in the context of inline volumes")
	}
}

// validatePersistentVolumeUpdate: where the data is does not change.
func validatePersistentVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	var f kinds.Faults
	f.Join(validatePersistentVolume(v))
	now, was := v.Spec.PersistentVolumeSource.DeepCopy(), &old.Spec.PersistentVolumeSource
	if was.CSI != nil && was.CSI.ControllerExpandSecretRef == nil && now.CSI != nil {
		now.CSI.ControllerExpandSecretRef = nil
	}
	if !kinds.Same(*now, *was) {
		f.Forbidden(kinds.NewPath("spec").Child("persistentvolumesource"),
			"spec.persistentvolumesource is immutable after creation\n"+kinds.Diff(*was, *now))
	}
	f.Immutable(kinds.NewPath("volumeMode"), v.Spec.VolumeMode, old.Spec.VolumeMode)
	if old.Spec.NodeAffinity != nil && !kinds.Same(renamed(v.Spec.NodeAffinity), renamed(old.Spec.NodeAffinity)) {
		f.Invalid(kinds.NewPath("nodeAffinity"), v.Spec.NodeAffinity,
			apivalidation.FieldImmutableErrorMsg+", except for updating from beta label to GA")
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		f.Forbidden(kinds.NewPath("spec").Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden")
	}
	return f.List()
}

// successors are the labels that took the place of others.
var successors = map[string]string{
	"beta.kubernetes.io/arch":                  "kubernetes.io/arch",
	"beta.kubernetes.io/os":                    "kubernetes.io/os",
	"failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
	"failure-domain.beta.kubernetes.io/zone":   "topology.kubernetes.io/zone",
	"beta.kubernetes.io/instance-type":         "node.kubernetes.io/instance-type",
}

// renamed is the affinity with labels' newest names.
func renamed(a *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if a == nil || a.Required == nil {
		return a
	}
	a = a.DeepCopy()
	for i := range a.Required.NodeSelectorTerms {
		expressions := a.Required.NodeSelectorTerms[i].MatchExpressions
		for j := range expressions {
			if name, ok := successors[expressions[j].Key]; ok {
				expressions[j].Key = name
			}
		}
	}
	return a
}
