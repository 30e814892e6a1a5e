package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// MaxSecretSize is the most bytes that a Secret or ConfigMap may hold.
const MaxSecretSize = 1 << 20

func validateConfigMap(m *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	total := 0
	for key, value := range m.Data {
		errs = append(errs, validateDataKey(key, kinds.NewPath("data").Key(key))...)
		if _, twice := m.BinaryData[key]; twice {
			errs = append(errs, field.Invalid(kinds.NewPath("data").Key(key).Field(), key, "duplicate of key present in binaryData"))
		}
		total += len(value)
	}
	for key, value := range m.BinaryData {
		errs = append(errs, validateDataKey(key, kinds.NewPath("binaryData").Key(key))...)
		total += len(value)
	}
	if total > MaxSecretSize {
		// The empty path is upstream's: the object as a whole is too long.
		errs = append(errs, field.TooLong(kinds.NewPath("").Field(), "", MaxSecretSize))
	}
	return errs
}

func validateDataKey(key string, path *kinds.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsConfigMapKey(key) {
		errs = append(errs, field.Invalid(path.Field(), key, msg))
	}
	return errs
}

func validateConfigMapUpdate(m, old *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	if kinds.Deref(old.Immutable) {
		errs = append(errs, validateStillImmutable(m.Immutable)...)
		if !kinds.Same(m.Data, old.Data) {
			errs = append(errs, field.Forbidden(kinds.NewPath("data").Field(), immutableSet))
		}
		if !kinds.Same(m.BinaryData, old.BinaryData) {
			errs = append(errs, field.Forbidden(kinds.NewPath("binaryData").Field(), immutableSet))
		}
	}
	return append(errs, validateConfigMap(m)...)
}

const immutableSet = "field is immutable when `immutable` is set"

func validateStillImmutable(now *bool) field.ErrorList {
	if kinds.Deref(now) {
		return nil
	}
	return field.ErrorList{field.Forbidden(kinds.NewPath("immutable").Field(), immutableSet)}
}
