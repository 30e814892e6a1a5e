package core

import (
	"path"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validatePersistentVolume(v *corev1.PersistentVolume) field.ErrorList {
	c := &podCheck{}
	spec, at := &v.Spec, field.NewPath("spec")
	if len(spec.AccessModes) == 0 {
		c.Required(at.Child("accessModes"), "")
	}
	validateAccessModes(&c.Faults, spec.AccessModes, at.Child("accessModes"))
	c.checkCapacity(spec.Capacity, at.Child("capacity"))
	if spec.PersistentVolumeReclaimPolicy != "" {
		kinds.OneOf(&c.Faults, at.Child("persistentVolumeReclaimPolicy"), spec.PersistentVolumeReclaimPolicy,
			corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)
	}
	c.checkVolumeAffinity(spec, at)
	c.checkPersistentSource(spec, at)
	c.subdomain(at.Child("storageClassName"), spec.StorageClassName)
	if spec.VolumeMode != nil {
		kinds.OneOf(&c.Faults, at.Child("volumeMode"), *spec.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
	c.checkAttributesClass(spec, at)
	return c.List()
}

func (c *podCheck) checkAttributesClass(spec *corev1.PersistentVolumeSpec, at *field.Path) {
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

func (c *podCheck) checkCapacity(capacity corev1.ResourceList, at *field.Path) {
	if len(capacity) == 0 {
		c.Required(at, "")
	}
	if _, ok := capacity[corev1.ResourceStorage]; !ok || len(capacity) > 1 {
		c.Join(field.ErrorList{field.NotSupported(at, capacity, []corev1.ResourceName{corev1.ResourceStorage})})
	}
	for name, amount := range capacity {
		if amount.Sign() <= 0 {
			c.Invalid(at.Key(string(name)), amount.String(), positiveText)
		}
	}
}

// checkVolumeAffinity: a volume that exists on one node only says which.
func (c *podCheck) checkVolumeAffinity(spec *corev1.PersistentVolumeSpec, at *field.Path) {
	affinity := spec.NodeAffinity
	switch {
	case affinity != nil && affinity.Required == nil:
		c.Required(at.Child("nodeAffinity", "required"), "must specify required node constraints")
	case affinity != nil:
		c.Join(validateNodeSelector(affinity.Required, at.Child("nodeAffinity", "required")))
	case spec.Local != nil:
		c.Required(at.Child("nodeAffinity"), "Local volume requires node affinity")
	}
}

// checkPersistentSource wants exactly one source, and checks those that still
// have a driver.
func (c *podCheck) checkPersistentSource(spec *corev1.PersistentVolumeSpec, at *field.Path) {
	found := false
	sources := reflect.ValueOf(spec.PersistentVolumeSource)
	for i := range sources.NumField() {
		if sources.Field(i).IsNil() {
			continue
		}
		name, _, _ := strings.Cut(sources.Type().Field(i).Tag.Get("json"), ",")
		if found {
			c.Forbidden(at.Child(name), "may not specify more than 1 volume type")
		}
		found = true
	}
	switch {
	case !found:
		c.Required(at, "must specify a volume type")
	case spec.HostPath != nil:
		c.checkHostPath(spec.HostPath, at.Child("hostPath"))
		if path.Clean(spec.HostPath.Path) == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
			c.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'")
		}
	case spec.NFS != nil:
		c.checkNFS(spec.NFS, at.Child("nfs"))
	case spec.Local != nil:
		if c.NonEmpty(at.Child("local", "path"), spec.Local.Path) {
			c.noBacksteps(at.Child("local", "path"), spec.Local.Path)
		}
	case spec.FC != nil:
		c.checkFC(spec.FC, at.Child("fc"))
	case spec.CSI != nil:
		c.checkPersistentCSI(spec.CSI, at.Child("csi"))
	}
}

func (c *podCheck) checkPersistentCSI(s *corev1.CSIPersistentVolumeSource, at *field.Path) {
	c.Join(validateDriverName(s.Driver, at.Child("driver")))
	c.NonEmpty(at.Child("volumeHandle"), s.VolumeHandle)
	for _, secret := range []struct {
		field string
		ref   *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", s.ControllerPublishSecretRef}, {"controllerExpandSecretRef", s.ControllerExpandSecretRef},
		{"nodePublishSecretRef", s.NodePublishSecretRef}, {"nodeExpandSecretRef", s.NodeExpandSecretRef},
		{"nodeStageSecretRef", s.NodeStageSecretRef},
	} {
		if secret.ref == nil {
			continue
		}
		here := at.Child(secret.field)
		if c.NonEmpty(here.Child("name"), secret.ref.Name) {
			c.Each(here.Child("name"), secret.ref.Name, apivalidation.NameIsDNSSubdomain(secret.ref.Name, false))
		}
		if c.NonEmpty(here.Child("namespace"), secret.ref.Namespace) {
			c.Each(here.Child("namespace"), secret.ref.Namespace, validation.IsDNS1123Label(secret.ref.Namespace))
		}
	}
}

// ValidateDriverName checks the name of a CSI driver.
func ValidateDriverName(name string, at *field.Path) field.ErrorList {
	return validateDriverName(name, at)
}

// ValidateInlineVolumeSpec checks a volume that is written out where it is used,
// in a VolumeAttachment: a CSI volume, and nothing that belongs to the life of a
// PersistentVolume.
func ValidateInlineVolumeSpec(spec *corev1.PersistentVolumeSpec, at *field.Path) field.ErrorList {
	c := &podCheck{}
	const elsewhere = "may not be specified in the context of inline volumes"
	for _, no := range []struct {
		field string
		set   bool
	}{
		{"claimRef", spec.ClaimRef != nil}, {"capacity", len(spec.Capacity) > 0},
		{"nodeAffinity", spec.NodeAffinity != nil}, {"storageClassName", spec.StorageClassName != ""},
	} {
		if no.set {
			c.Forbidden(at.Child(no.field), elsewhere)
		}
	}
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
	if m := spec.VolumeMode; m != nil && *m != corev1.PersistentVolumeFilesystem {
		c.Forbidden(at.Child("volumeMode"), "may not specify volumeMode other than Filesystem in the context of inline volumes")
	}
	c.checkPersistentSource(spec, at)
	c.checkAttributesClass(spec, at)
	return c.List()
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
		f.Forbidden(field.NewPath("spec", "persistentvolumesource"),
			"spec.persistentvolumesource is immutable after creation\n"+diff.Diff(*was, *now))
	}
	f.Immutable(field.NewPath("volumeMode"), v.Spec.VolumeMode, old.Spec.VolumeMode)
	if old.Spec.NodeAffinity != nil && !kinds.Same(renamed(v.Spec.NodeAffinity), renamed(old.Spec.NodeAffinity)) {
		f.Invalid(field.NewPath("nodeAffinity"), v.Spec.NodeAffinity,
			apivalidation.FieldImmutableErrorMsg+", except for updating from beta label to GA")
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		f.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden")
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
