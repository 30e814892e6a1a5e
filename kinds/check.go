package kinds

import (
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// NonNegative refuses values below zero, in upstream's words.
func NonNegative(value int64, at *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(value, at)
}

// Immutable refuses a value that is not what it was.
func Immutable(value, old any, at *field.Path) field.ErrorList {
	return apivalidation.ValidateImmutableField(value, old, at)
}

// PathName is the laxest rule for names: anything that can be one segment of a
// URL's path (RBAC kinds).
func PathName(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}
