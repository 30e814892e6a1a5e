package kinds

import (
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The functions below let a kind's file be written with its own Go type where a
// Kind wants Object. Each panics when it is handed another kind's object: that
// is a mistake in the table, not in a request.

// Each adapts a function that changes one object.
func Each[T Object](f func(obj T)) func(Object) {
	return func(obj Object) { f(obj.(T)) }
}

// Pair adapts a function that changes an object in sight of its predecessor.
func Pair[T Object](f func(obj, old T)) func(Object, Object) {
	return func(obj, old Object) { f(obj.(T), old.(T)) }
}

// Check adapts the validation of one object.
func Check[T Object](f func(obj T) field.ErrorList) func(Object) field.ErrorList {
	return func(obj Object) field.ErrorList { return f(obj.(T)) }
}

// CheckUpdate adapts the validation of a change.
func CheckUpdate[T Object](f func(obj, old T) field.ErrorList) func(Object, Object) field.ErrorList {
	return func(obj, old Object) field.ErrorList { return f(obj.(T), old.(T)) }
}

// Warn adapts warnings; f gets the zero T for old on create.
func Warn[T Object](f func(obj, old T) []string) func(Object, Object) []string {
	return func(obj, old Object) []string {
		var before T
		if old != nil {
			before = old.(T)
		}
		return f(obj.(T), before)
	}
}

// Fields adapts the selectable fields of a kind.
func Fields[T Object](f func(obj T) fields.Set) func(Object) fields.Set {
	return func(obj Object) fields.Set { return f(obj.(T)) }
}

// Row adapts the cells of a table's row.
func Row[T Object](f func(obj T, now time.Time) []any) func(Object, time.Time) []any {
	return func(obj Object, now time.Time) []any { return f(obj.(T), now) }
}

// Same reports whether two API values mean the same: quantities by value, and
// nil like empty.
func Same(a, b any) bool { return apiequality.Semantic.DeepEqual(a, b) }

// FirstGeneration is PrepareCreate's part for kinds that count generations.
func FirstGeneration(obj Object) { obj.SetGeneration(1) }

// NextGeneration sets obj's generation from old's: one more if what the user
// wants has changed. Clients never set it themselves.
func NextGeneration(obj, old Object, changed bool) {
	obj.SetGeneration(old.GetGeneration())
	if changed {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
}
