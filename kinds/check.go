package kinds

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// NonNegative refuses values below zero, in upstream's words.
func NonNegative(value int64, at *Path) field.ErrorList {
	if value >= 0 {
		return nil
	}
	return apivalidation.ValidateNonnegativeField(value, at.Field())
}

// Immutable refuses a value that is not what it was.
func Immutable(value, old any, at *Path) field.ErrorList {
	if equality.Semantic.DeepEqual(value, old) {
		return nil
	}
	errs := apivalidation.ValidateImmutableField(value, old, at.Field())
	for _, err := range errs {
		err.BadValue = shown(err.BadValue)
	}
	return errs
}

// PathName is the laxest rule for names: anything that can be one segment of a
// URL's path.
func PathName(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

// plainFinalizers are the finalizers that need no domain before their name.
var plainFinalizers = []string{string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}

// Finalizers refuses names without a domain that are not standard ones. That they
// are well formed is checked with the rest of the metadata.
func Finalizers(names []string, at *Path) field.ErrorList {
	var f Faults
	for i, name := range names {
		if !strings.Contains(name, "/") && !slices.Contains(plainFinalizers, name) {
			f.Invalid(at.Index(i), name, "name is neither a standard finalizer name nor is it fully qualified")
		}
	}
	return f.List()
}
