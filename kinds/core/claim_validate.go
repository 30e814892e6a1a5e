package core

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validateClaim(c *corev1.PersistentVolumeClaim) field.ErrorList {
	return ValidateClaimSpec(&c.Spec, kinds.NewPath("spec"))
}

// ValidateClaimSpec checks what a claim asks for.
func ValidateClaimSpec(spec *corev1.PersistentVolumeClaimSpec, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	if len(spec.AccessModes) == 0 {
		f.Required(at.Child("accessModes"), "at least 1 access mode is required")
	}
	f.JoinAt(at.Child("selector"), metavalidation.ValidateLabelSelector(spec.Selector, metavalidation.LabelSelectorValidationOptions{}, kinds.Here))
	validateAccessModes(&f, spec.AccessModes, at.Child("accessModes"))
	size := at.Child("resources").Key(string(corev1.ResourceStorage))
	amount, ok := spec.Resources.Requests[corev1.ResourceStorage]
	switch {
	case !ok:
		f.Required(size, "")
	case amount.Sign() <= 0:
		f.Invalid(size, amount.String(), positiveText)
	}
	optionalClass(&f, spec.StorageClassName, at.Child("storageClassName"))
	if spec.VolumeMode != nil {
		kinds.OneOf(&f, at.Child("volumeMode"), *spec.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
	validateDataSources(&f, spec, at)
	optionalClass(&f, spec.VolumeAttributesClassName, at.Child("volumeAttributesClassName"))
	return f.List()
}

func validateAccessModes(f *kinds.Faults, modes []corev1.PersistentVolumeAccessMode, at *kinds.Path) {
	alone, others := false, false
	for _, mode := range modes {
		before := f.Count()
		kinds.OneOf(f, at, mode, corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOncePod)
		alone = alone || mode == corev1.ReadWriteOncePod
		others = others || mode != corev1.ReadWriteOncePod && f.Count() == before
	}
	if alone && others {
		f.Forbidden(at, "may not use ReadWriteOncePod with other access modes")
	}
}

func optionalClass(f *kinds.Faults, name *string, at *kinds.Path) {
	if name != nil && *name != "" {
		f.Each(at, *name, apivalidation.NameIsDNSSubdomain(*name, false))
	}
}

// validateDataSources: dataSource is the older spelling of dataSourceRef; where
// both are given they agree.
func validateDataSources(f *kinds.Faults, spec *corev1.PersistentVolumeClaimSpec, at *kinds.Path) {
	source, ref := spec.DataSource, spec.DataSourceRef
	if source != nil {
		validateSource(f, kinds.Deref(source.APIGroup), source.Kind, source.Name, at.Child("dataSource"))
	}
	if ref == nil {
		return
	}
	validateSource(f, kinds.Deref(ref.APIGroup), ref.Kind, ref.Name, at.Child("dataSourceRef"))
	namespace := kinds.Deref(ref.Namespace)
	if namespace != "" {
		f.Each(at.Child("dataSourceRef").Child("namespace"), namespace, apivalidation.ValidateNamespaceName(namespace, false))
	}
	switch {
	case source == nil:
	case namespace != "":
		f.Invalid(at, at.Child("dataSource").Field(), "may not be specified when dataSourceRef.namespace is specified")
	case !kinds.Same(source.APIGroup, ref.APIGroup) || source.Kind != ref.Kind || source.Name != ref.Name:
		f.Invalid(at, at.Child("dataSource").Field(), "must match dataSourceRef")
	}
}

func validateSource(f *kinds.Faults, group, kind, name string, at *kinds.Path) {
	f.NonEmpty(at.Child("name"), name)
	f.NonEmpty(at.Child("kind"), kind)
	if group == "" && kind != "PersistentVolumeClaim" {
		f.Invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
	}
	if group != "" {
		f.Each(at.Child("apiGroup"), group, validation.IsDNS1123Subdomain(group))
	}
}

// TemplateMeta refuses whatever the metadata of a template for a claim says beyond
// labels and annotations.
func TemplateMeta(meta *metav1.ObjectMeta, at *kinds.Path) field.ErrorList {
	c := &podCheck{}
	c.onlyFields(*meta, sets.New("Annotations", "Labels"), "cannot be set", at)
	return c.List()
}

// validateClaimTemplate checks the template of an ephemeral volume's claim: of
// its metadata only labels and annotations are taken over.
func validateClaimTemplate(t *corev1.PersistentVolumeClaimTemplate, at *kinds.Path) field.ErrorList {
	c := &podCheck{}
	meta := at.Child("metadata")
	c.JoinAt(meta.Child("annotations"), apivalidation.ValidateAnnotations(t.Annotations, kinds.Here))
	c.JoinAt(meta.Child("labels"), metavalidation.ValidateLabels(t.Labels, kinds.Here))
	c.Join(TemplateMeta(&t.ObjectMeta, meta))
	c.Join(ValidateClaimSpec(&t.Spec, at.Child("spec")))
	return c.List()
}

// validateClaimUpdate: a claim is what was bound. The volume is named once; a
// bound claim may ask for more, and for another attributes class.
func validateClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	var f kinds.Faults
	f.Join(validateClaim(c))
	spec := kinds.NewPath("spec")
	now, was := c.Spec.DeepCopy(), old.Spec.DeepCopy()
	pairDataSources(was) // it may be from before there were two spellings
	if was.VolumeName == "" {
		was.VolumeName = now.VolumeName
	}
	annotation := corev1.BetaStorageClassAnnotation
	class, annotated := old.Annotations[annotation]
	if classMayAppear(now.StorageClassName, was.StorageClassName, class, annotated) {
		now.StorageClassName = was.StorageClassName
	}
	if value, kept := c.Annotations[annotation]; annotated != kept || value != class {
		if !annotated || kept || kinds.Deref(c.Spec.StorageClassName) != class {
			f.Immutable(kinds.NewPath("metadata").Child("annotations").Key(annotation), value, class)
		}
	}
	if c.Status.Phase == corev1.ClaimBound {
		if now.Resources.Requests != nil {
			now.Resources.Requests[corev1.ResourceStorage] = was.Resources.Requests[corev1.ResourceStorage]
		}
		now.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	if !kinds.Same(now, was) {
		f.Forbidden(spec, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"+
			kinds.Diff(was, now))
	}
	size, before := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	actual := old.Status.Capacity[corev1.ResourceStorage]
	if size.Cmp(before) < 0 && size.Cmp(actual) <= 0 {
		f.Forbidden(spec.Child("resources").Child("requests").Child("storage"), "field can not be less than status.capacity")
	}
	f.Immutable(kinds.NewPath("volumeMode"), c.Spec.VolumeMode, old.Spec.VolumeMode)
	attributes := spec.Child("volumeAttributesClassName")
	if old.Status.CurrentVolumeAttributesClassName != nil && !kinds.Same(c.Spec.VolumeAttributesClassName, old.Spec.VolumeAttributesClassName) {
		switch {
		case c.Spec.VolumeAttributesClassName == nil:
			f.Forbidden(attributes, "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil")
		case *c.Spec.VolumeAttributesClassName == "":
			f.Forbidden(attributes, "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil")
		}
	}
	return f.List()
}

// classMayAppear: a claim without a class may get one, that of its old
// annotation if it has that.
func classMayAppear(now, was *string, annotation string, annotated bool) bool {
	return now != nil && was == nil && (!annotated || *now == annotation)
}

func validateClaimStatusUpdate(c, _ *corev1.PersistentVolumeClaim) field.ErrorList {
	var f kinds.Faults
	status := kinds.NewPath("status")
	for _, name := range slices.Sorted(maps.Keys(c.Status.Capacity)) {
		basicAmount(&f, c.Status.Capacity[name], status.Child("capacity").Key(string(name)))
	}
	at := status.Child("allocatedResourceStatuses")
	for _, name := range slices.Sorted(maps.Keys(c.Status.AllocatedResourceStatuses)) {
		claimResource(&f, name, at)
		if phase := c.Status.AllocatedResourceStatuses[name]; !slices.Contains(resizePhases, string(phase)) {
			f.NotSupported(at, name, resizePhases...) // upstream names the resource, not its phase
		}
	}
	at = status.Child("allocatedResources")
	for _, name := range slices.Sorted(maps.Keys(c.Status.AllocatedResources)) {
		amount, here := c.Status.AllocatedResources[name], at.Key(string(name))
		if claimResource(&f, name, at) && basicAmount(&f, amount, here) {
			f.Join(validateQuantity(corev1.ResourceStorage, amount, here))
		}
	}
	return f.List()
}

// resizePhases are what may be said of the growth of a claim's volume, sorted.
var resizePhases = []string{
	string(corev1.PersistentVolumeClaimControllerResizeInProgress), string(corev1.PersistentVolumeClaimControllerResizeInfeasible),
	string(corev1.PersistentVolumeClaimNodeResizeInProgress), string(corev1.PersistentVolumeClaimNodeResizeInfeasible),
	string(corev1.PersistentVolumeClaimNodeResizePending),
}

// basicAmount refuses amounts below zero; false: it was one.
func basicAmount(f *kinds.Faults, amount resource.Quantity, at *kinds.Path) bool {
	if amount.Value() < 0 {
		f.Invalid(at, amount.Value(), "must be a valid resource quantity")
		return false
	}
	return true
}

func claimResource(f *kinds.Faults, name corev1.ResourceName, at *kinds.Path) bool {
	before := f.Count()
	messages := validation.IsQualifiedName(string(name))
	f.Each(at, string(name), messages)
	if len(messages) == 0 && isNative(name) && name != corev1.ResourceStorage {
		kinds.OneOf(f, at, name, corev1.ResourceStorage)
	}
	return f.Count() == before
}

// settleDataSources drops what a claim cannot be filled from, unless it already said
// so: anything of another namespace, and, where the older spelling alone is used,
// anything but claims and snapshots.
func settleDataSources(spec, old *corev1.PersistentVolumeClaimSpec) {
	if ref := spec.DataSourceRef; ref != nil && kinds.Deref(ref.Namespace) != "" && old.DataSourceRef == nil {
		spec.DataSourceRef = nil
	}
	known := old.DataSource != nil || old.DataSourceRef != nil
	if s := spec.DataSource; s != nil && spec.DataSourceRef == nil && !known {
		claim := s.Kind == "PersistentVolumeClaim" && kinds.Deref(s.APIGroup) == ""
		snapshot := s.Kind == "VolumeSnapshot" && kinds.Deref(s.APIGroup) == "snapshot.storage.k8s.io"
		if !claim && !snapshot {
			spec.DataSource = nil
		}
	}
	pairDataSources(spec)
}

// pairDataSources writes the one spelling of a data source into the other.
func pairDataSources(spec *corev1.PersistentVolumeClaimSpec) {
	source, ref := spec.DataSource, spec.DataSourceRef
	switch {
	case source != nil && ref == nil:
		spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: source.APIGroup, Kind: source.Kind, Name: source.Name}
	case source == nil && ref != nil && kinds.Deref(ref.Namespace) == "":
		spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ref.APIGroup, Kind: ref.Kind, Name: ref.Name}
	}
}
