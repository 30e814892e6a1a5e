// Package declared is how the rules are written that upstream does not write by
// hand but declares beside the fields of its types ("+k8s:maxItems=32",
// KEP-5073). They differ from those written by hand: they look at the version
// that is served, speak after them, in words of their own and in the order of the
// fields, and in an update they leave alone whatever is as it was.
package declared

import (
	"context"
	"slices"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// Rules collects what declared rules find. It is for one goroutine and one object.
type Rules struct {
	kinds.Faults
	op operation.Operation
}

// Create makes the rules for a new object.
func Create() *Rules { return &Rules{op: operation.Operation{Type: operation.Create}} }

// Update makes the rules for a changed object.
func Update() *Rules { return &Rules{op: operation.Operation{Type: operation.Update}} }

// For is Update if there was an object before, and Create if not.
func For[T any](old *T) *Rules {
	if old == nil {
		return Create()
	}
	return Update()
}

// Operation is what apimachinery's rules want to know of the request.
func (r *Rules) Operation() operation.Operation { return r.op }

// Behind puts what the rules found behind the faults found by hand. Of a fault
// that both have found, the same kind of fault in the same field, the rules' stays,
// unless it is that the field is immutable, or the one by hand has an origin, and
// it is another.
func (r *Rules) Behind(hand field.ErrorList) field.ErrorList {
	found := r.List()
	hand = slices.DeleteFunc(hand, func(h *field.Error) bool {
		return slices.ContainsFunc(found, func(d *field.Error) bool {
			return d.Type == h.Type && d.Field == h.Field && d.Origin != "immutable" && (h.Origin == "" || h.Origin == d.Origin)
		})
	})
	return append(hand, found...)
}

// Rule is the form of the rules in apimachinery's validate package.
type Rule[T any] func(ctx context.Context, op operation.Operation, at *field.Path, value, old *T) field.ErrorList

// Text checks a string, unless it is what it was. Empty ones are left alone: of
// those Required speaks.
func Text[T any, S ~string](r *Rules, now, old *T, at *kinds.Path, get func(*T) S, rules ...Rule[S]) {
	Field(r, now, old, at, get, func(value, _ S, at *kinds.Path) {
		for _, rule := range rules {
			if value != "" {
				r.Join(rule(context.Background(), r.op, at.Field(), &value, nil))
			}
		}
	})
}

// Required is Text for strings that must be there.
func Required[T any, S ~string](r *Rules, now, old *T, at *kinds.Path, get func(*T) S, rules ...Rule[S]) {
	Field(r, now, old, at, get, func(value, _ S, at *kinds.Path) {
		if value == "" {
			r.Faults.Required(at, "")
		}
	})
	Text(r, now, old, at, get, rules...)
}

// Field lets check look at a field, unless it is what it was. The old value is the
// zero one if there is no old object.
func Field[T, V any](r *Rules, now, old *T, at *kinds.Path, get func(*T) V, check func(now, old V, at *kinds.Path)) {
	var was V
	value := get(now)
	if old != nil {
		was = get(old)
		if r.op.Type == operation.Update && apiequality.Semantic.DeepEqual(value, was) {
			return
		}
	}
	check(value, was, at)
}

// Pointer is Field for a part that need not be there: check sees only those that
// are.
func Pointer[T, V any](r *Rules, now, old *T, at *kinds.Path, get func(*T) *V, check func(now, old *V, at *kinds.Path)) {
	Field(r, now, old, at, get, func(value, was *V, at *kinds.Path) {
		if value != nil {
			check(value, was, at)
		}
	})
}

// Each is what is declared of a list: at most so many items (0: any number), no two
// the Same (nil: whatever they are), and a check of each item. In an update items
// are compared with the old one that is the Same, and not checked if they are as
// they were.
type Each[V any] struct {
	Most  int
	Same  func(a, b *V) bool
	Check func(now, old *V, at *kinds.Path)
}

// List checks a list that may be empty, unless it is what it was.
func List[T, V any](r *Rules, now, old *T, at *kinds.Path, get func(*T) []V, each Each[V]) {
	Field(r, now, old, at, get, func(list, was []V, at *kinds.Path) { each.items(r, list, was, at) })
}

func (e Each[V]) items(r *Rules, list, was []V, at *kinds.Path) {
	if e.Most > 0 && len(list) > e.Most {
		r.TooMany(at, len(list), e.Most)
		return
	}
	if e.Same != nil {
		r.Join(validate.ValSliceUnique(context.Background(), r.op, at.Field(), list, was, e.Same))
	}
	if e.Check == nil {
		return
	}
	for i := range list {
		var before *V
		if e.Same != nil {
			if j := slices.IndexFunc(was, func(old V) bool { return e.Same(&old, &list[i]) }); j >= 0 {
				before = &was[j]
			}
		}
		if before == nil || r.op.Type != operation.Update || !apiequality.Semantic.DeepEqual(list[i], *before) {
			e.Check(&list[i], before, at.Index(i))
		}
	}
}

// Equal says that two items of a set are one.
func Equal[V comparable](a, b *V) bool { return *a == *b }

// AnyName is the Strategy.ValidateName of kinds whose name is one of the declared
// rules: LongName, behind those by hand, and of new objects alone. The prefix of a
// generated name is not looked at.
func AnyName(string, bool) []string { return nil }

// LongName checks an object's name, which is a subdomain. Of one without a name there
// are rules by hand.
func LongName(name string) field.ErrorList {
	if name == "" {
		return nil
	}
	return validate.LongName(context.Background(), operation.Operation{Type: operation.Create}, kinds.NewPath("metadata").Child("name").Field(), &name, nil)
}

// MaxBytes is a rule for the length of strings, in bytes.
func MaxBytes[S ~string](most int) Rule[S] {
	return func(ctx context.Context, op operation.Operation, at *field.Path, value, old *S) field.ErrorList {
		return validate.MaxBytes(ctx, op, at, value, old, most)
	}
}

// MaxLength is a rule for the length of strings, in characters.
func MaxLength[S ~string](most int) Rule[S] {
	return func(ctx context.Context, op operation.Operation, at *field.Path, value, old *S) field.ErrorList {
		return validate.MaxLength(ctx, op, at, value, old, most)
	}
}

// OneOf is the rule that a string is one of some.
func OneOf[S ~string](allowed ...S) Rule[S] {
	all := sets.New(allowed...)
	return func(ctx context.Context, op operation.Operation, at *field.Path, value, old *S) field.ErrorList {
		return validate.Enum(ctx, op, at, value, old, all, nil)
	}
}

// Invalid says that the value at a path is wrong, and shows it as it is served.
func (r *Rules) Invalid(at *kinds.Path, value any, detail string) {
	r.Join(field.ErrorList{field.Invalid(at.Field(), value, detail)})
}

// Immutable refuses a change.
func (r *Rules) Immutable(at *kinds.Path) {
	r.Join(field.ErrorList{field.Invalid(at.Field(), nil, "field is immutable").WithOrigin("immutable")})
}

// Unless wants a value, or none, by what another field says: it is what is declared
// of the members of a union with a discriminator.
func Unless[V any](r *Rules, at *kinds.Path, value *V, wanted, allowed bool) {
	switch {
	case value == nil && wanted:
		r.Faults.Required(at, "")
	case value != nil && !allowed:
		r.Forbidden(at, "")
	}
}

// Fixed is Field for what never changes: check sees it in new objects alone.
func Fixed[T, V any](r *Rules, now, old *T, at *kinds.Path, get func(*T) V, check func(now V, at *kinds.Path)) {
	Field(r, now, old, at, get, func(value, _ V, at *kinds.Path) {
		if r.op.Type == operation.Update {
			r.Immutable(at)
			return
		}
		check(value, at)
	})
}

// Kept refuses, in an update, items that are new and items that are missing, and
// says whether there are any.
func Kept[V any](r *Rules, list, was []V, at *kinds.Path, same func(a, b *V) bool) bool {
	found := validate.ValSliceUpdate(context.Background(), r.op, at.Field(), list, was, same, validate.NoAddItem, validate.NoRemoveItem)
	r.Join(found)
	return len(found) == 0
}

// NeverSetNorUnset refuses, in an update, that a part comes or goes, and says
// whether it does.
func NeverSetNorUnset[V any](r *Rules, value, was *V, at *kinds.Path) bool {
	found := validate.UpdatePointer(context.Background(), r.op, at.Field(), value, was, validate.NoSet, validate.NoUnset)
	r.Join(found)
	return len(found) == 0
}

// String checks a string that has no field of its own.
func String[S ~string](r *Rules, value S, at *kinds.Path, rules ...Rule[S]) {
	for _, rule := range rules {
		r.Join(rule(context.Background(), r.op, at.Field(), &value, nil))
	}
}
