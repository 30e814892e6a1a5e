package kinds

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Faults collects what is wrong with an object. The zero value is ready; it is
// for one goroutine. Messages are upstream's, word for word: clients parse them.
type Faults struct{ list field.ErrorList }

// List is everything found so far, nil if that is nothing.
func (f *Faults) List() field.ErrorList { return f.list }

// None says that nothing has been found.
func (f *Faults) None() bool { return len(f.list) == 0 }

// Count is how many faults there are; comparing two counts tells whether a
// check in between found something.
func (f *Faults) Count() int { return len(f.list) }

// add takes a fault in that was made without a path, and says where it is.
func (f *Faults) add(at *Path, fault *field.Error) {
	fault.Field = at.String()
	f.list = append(f.list, fault)
}

// Join adds the findings of a check made elsewhere.
func (f *Faults) Join(errs field.ErrorList) { f.list = append(f.list, errs...) }

// Here is the path for a check of apimachinery's whose findings JoinAt takes in.
var Here = field.NewPath("")

// JoinAt is Join for what such a check found Here, which is at: as most find nothing,
// none is told the path itself.
func (f *Faults) JoinAt(at *Path, errs field.ErrorList) {
	for _, fault := range errs {
		fault.Field = at.String() + strings.TrimPrefix(fault.Field, Here.String())
		f.list = append(f.list, fault)
	}
}

// Invalid says that the value at a path is wrong.
func (f *Faults) Invalid(at *Path, value any, detail string) {
	f.add(at, field.Invalid(nil, shown(value), detail))
}

// Required says that a value is missing.
func (f *Faults) Required(at *Path, detail string) {
	f.add(at, field.Required(nil, detail))
}

// Forbidden says that a value may not be there, or not change.
func (f *Faults) Forbidden(at *Path, detail string) {
	f.add(at, field.Forbidden(nil, detail))
}

// Duplicate says that a value is there already.
func (f *Faults) Duplicate(at *Path, value any) {
	f.add(at, field.Duplicate(nil, shown(value)))
}

// NotFound says that a value refers to something that is not there.
func (f *Faults) NotFound(at *Path, value any) {
	f.add(at, field.NotFound(nil, shown(value)))
}

// TooLong says that a string has more than limit characters.
func (f *Faults) TooLong(at *Path, limit int) {
	f.add(at, field.TooLong(nil, "", limit))
}

// TooMany says that a list has more than limit elements.
func (f *Faults) TooMany(at *Path, count, limit int) {
	f.add(at, field.TooMany(nil, count, limit))
}

// NotSupported says that a value is none of those that are, in their order.
func (f *Faults) NotSupported(at *Path, value any, supported ...string) {
	f.add(at, field.NotSupported(nil, shown(value), supported))
}

// errorTypeAside is the type of what Aside makes.
const errorTypeAside field.ErrorType = "Aside"

// Aside is what a rule has to say of a fault that it lets pass, for it was there
// before. Whoever asks the rules takes it out with Asides, and warns.
func Aside(text string) *field.Error { return &field.Error{Type: errorTypeAside, Detail: text} }

// Asides parts what rules found from what they only say.
func Asides(found field.ErrorList) (faults field.ErrorList, said []string) {
	faults = slices.DeleteFunc(found, func(e *field.Error) bool {
		if e.Type == errorTypeAside {
			said = append(said, e.Detail)
		}
		return e.Type == errorTypeAside
	})
	return faults, said
}

// Each adds one Invalid per message: what the name and format checks of
// apimachinery return.
func (f *Faults) Each(at *Path, value any, messages []string) {
	for _, message := range messages {
		f.Invalid(at, value, message)
	}
}

// NonEmpty requires a string, and reports whether it is there.
func (f *Faults) NonEmpty(at *Path, value string) bool {
	if value == "" {
		f.Required(at, "")
		return false
	}
	return true
}

// NonNegative refuses a number below zero.
func (f *Faults) NonNegative(at *Path, value int64) { f.Join(NonNegative(value, at)) }

// Immutable refuses a value that is not what it was.
func (f *Faults) Immutable(at *Path, value, old any) { f.Join(Immutable(value, old, at)) }

// OneOf wants one of the allowed values and lists them, sorted, if it is not.
func OneOf[T ~string](f *Faults, at *Path, value T, allowed ...T) {
	if slices.Contains(allowed, value) {
		return
	}
	sorted := slices.Clone(allowed)
	slices.Sort(sorted)
	f.add(at, field.NotSupported(nil, value, sorted))
}

// RequiredOneOf is OneOf for values that are also required.
func RequiredOneOf[T ~string](f *Faults, at *Path, value T, allowed ...T) {
	if f.NonEmpty(at, string(value)) {
		OneOf(f, at, value, allowed...)
	}
}

// Listed is OneOf for fields of which upstream lists the allowed values in an order
// of its own: the order in which they are given.
func Listed[T ~string](f *Faults, at *Path, value T, allowed ...T) {
	if !slices.Contains(allowed, value) {
		f.add(at, field.NotSupported(nil, value, allowed))
	}
}

// RequiredListed is Listed for values that are also required.
func RequiredListed[T ~string](f *Faults, at *Path, value T, allowed ...T) {
	if f.NonEmpty(at, string(value)) {
		Listed(f, at, value, allowed...)
	}
}
