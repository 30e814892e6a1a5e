package storage

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// The limits on what a provisioner can be told.
const (
	maxParameters     = 512
	maxParameterBytes = 256 << 10
)

func validateStorageClass(c *storagev1.StorageClass) field.ErrorList {
	r := declared.Create()
	r.NonEmpty(kinds.NewPath("provisioner"), c.Provisioner)
	return r.Behind(storageClass(c))
}

func storageClass(c *storagev1.StorageClass) field.ErrorList {
	var f kinds.Faults
	provisioner := kinds.NewPath("provisioner")
	if c.Provisioner != "" {
		f.Each(provisioner, strings.ToLower(c.Provisioner), validation.IsQualifiedName(strings.ToLower(c.Provisioner)))
	}
	checkParameters(&f, c.Parameters, kinds.NewPath("parameters"))
	if c.ReclaimPolicy != nil && *c.ReclaimPolicy != "" {
		kinds.OneOf(&f, kinds.NewPath("reclaimPolicy"), *c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)
	}
	mode := kinds.NewPath("volumeBindingMode")
	if c.VolumeBindingMode == nil {
		f.Required(mode, "")
	} else {
		kinds.OneOf(&f, mode, *c.VolumeBindingMode, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)
	}
	checkTopologies(&f, c.AllowedTopologies, kinds.NewPath("allowedTopologies"))
	return f.List()
}

func checkParameters(f *kinds.Faults, parameters map[string]string, at *kinds.Path) {
	if len(parameters) > maxParameters {
		f.TooLong(at, maxParameters)
		return
	}
	total := 0
	for key, value := range parameters {
		if key == "" {
			f.Invalid(at, key, "field can not be empty.")
		}
		total += len(key) + len(value)
	}
	if total > maxParameterBytes {
		f.TooLong(at, maxParameterBytes)
	}
}

// checkTopologies: no two terms say the same.
func checkTopologies(f *kinds.Faults, terms []corev1.TopologySelectorTerm, at *kinds.Path) {
	before := []map[string]sets.Set[string]{nil} // an empty term says nothing: upstream calls it a duplicate
	for i, term := range terms {
		expressions := at.Index(i).Child("matchLabelExpressions")
		said := map[string]sets.Set[string]{}
		for j, r := range term.MatchLabelExpressions {
			here := expressions.Index(j)
			if len(r.Values) == 0 {
				f.Required(here.Child("values"), "")
			}
			values := sets.New[string]()
			for k, value := range r.Values {
				if values.Has(value) {
					f.Duplicate(here.Child("values").Index(k), value)
				}
				values.Insert(value)
			}
			f.Join(metavalidation.ValidateLabelName(r.Key, here.Child("key").Field()))
			if _, twice := said[r.Key]; twice {
				f.Duplicate(here.Child("key"), r.Key)
			}
			said[r.Key] = values
		}
		for _, other := range before {
			if kinds.Same(said, other) {
				f.Duplicate(expressions, "")
			}
		}
		before = append(before, said)
	}
}

// validateStorageClassUpdate: the class's volumes were made as it said.
func validateStorageClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	r := declared.Update()
	declared.Field(r, c, old, kinds.NewPath("provisioner"), func(c *storagev1.StorageClass) string { return c.Provisioner }, func(now, _ string, at *kinds.Path) {
		r.NonEmpty(at, now)
		r.Immutable(at)
	})
	for _, part := range []struct {
		name     string
		now, old any
	}{
		{"parameters", c.Parameters, old.Parameters}, {"reclaimPolicy", c.ReclaimPolicy, old.ReclaimPolicy},
		{"volumeBindingMode", c.VolumeBindingMode, old.VolumeBindingMode},
	} {
		if !kinds.Same(part.now, part.old) {
			r.Immutable(kinds.NewPath(part.name))
		}
	}
	return r.Behind(storageClass(c))
}
