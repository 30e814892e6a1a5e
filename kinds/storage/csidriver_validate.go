package storage

import (
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// The bounds of a driver's token requests and of its update period, in seconds.
const (
	minTokenSeconds  = 600
	maxTokenSeconds  = 1 << 32
	minUpdateSeconds = 10
)

func validateCSIDriver(d *storagev1.CSIDriver) field.ErrorList {
	var f kinds.Faults
	s, at := &d.Spec, kinds.NewPath("spec")
	required := func(name string, value *bool) {
		if value == nil {
			f.Required(at.Child(name), "")
		}
	}
	required("attachedRequired", s.AttachRequired)
	required("podInfoOnMount", s.PodInfoOnMount)
	required("storageCapacity", s.StorageCapacity)
	if s.FSGroupPolicy != nil {
		kinds.OneOf(&f, at.Child("fsGroupPolicy"), *s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy,
			storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy)
	}
	checkTokenRequests(&f, s.TokenRequests, at.Child("tokenRequests"))
	for _, mode := range s.VolumeLifecycleModes {
		if mode != storagev1.VolumeLifecyclePersistent && mode != storagev1.VolumeLifecycleEphemeral {
			f.Join(field.ErrorList{field.NotSupported(at.Child("volumeLifecycleModes").Field(), mode,
				[]storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral})})
		}
	}
	required("seLinuxMount", s.SELinuxMount)
	if p := s.NodeAllocatableUpdatePeriodSeconds; p != nil && *p < minUpdateSeconds {
		f.Invalid(at.Child("nodeAllocatableUpdatePeriodSeconds"), *p, "must be greater than or equal to 10 seconds")
	}
	if s.ServiceAccountTokenInSecrets != nil && len(s.TokenRequests) == 0 {
		f.Invalid(at.Child("serviceAccountTokenInSecrets"), s.ServiceAccountTokenInSecrets,
			"serviceAccountTokenInSecrets is set but no tokenRequests are specified")
	}
	required("preventPodSchedulingIfMissing", s.PreventPodSchedulingIfMissing)
	return f.List()
}

// checkTokenRequests: one token an audience, and none that lives too short or
// for ever.
func checkTokenRequests(f *kinds.Faults, requests []storagev1.TokenRequest, at *kinds.Path) {
	audiences := sets.New[string]()
	for i, r := range requests {
		here := at.Index(i)
		if audiences.Has(r.Audience) {
			f.Duplicate(here.Child("audience"), r.Audience)
			continue
		}
		audiences.Insert(r.Audience)
		if r.ExpirationSeconds == nil {
			continue
		}
		if *r.ExpirationSeconds < minTokenSeconds {
			f.Invalid(here.Child("expirationSeconds"), *r.ExpirationSeconds, "may not specify a duration less than 10 minutes")
		}
		if *r.ExpirationSeconds > maxTokenSeconds {
			f.Invalid(here.Child("expirationSeconds"), *r.ExpirationSeconds, "may not specify a duration larger than 2^32 seconds")
		}
	}
}

// validateCSIDriverUpdate: how volumes are attached cannot change under those
// that are.
func validateCSIDriverUpdate(d, old *storagev1.CSIDriver) field.ErrorList {
	var f kinds.Faults
	f.Join(validateCSIDriver(d))
	f.Immutable(kinds.NewPath("spec").Child("attachedRequired"), d.Spec.AttachRequired, old.Spec.AttachRequired)
	f.Immutable(kinds.NewPath("spec").Child("volumeLifecycleModes"), d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes)
	return f.List()
}

func warnCSIDriver(d, old *storagev1.CSIDriver) []string {
	unchanged := old != nil && kinds.Same(old.Spec.TokenRequests, d.Spec.TokenRequests)
	if len(d.Spec.TokenRequests) == 0 || d.Spec.ServiceAccountTokenInSecrets != nil || unchanged {
		return nil
	}
	return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
}
