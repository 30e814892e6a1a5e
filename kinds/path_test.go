package kinds

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A path says what upstream's says, as text and for checks of apimachinery's.
func TestPathAsUpstreams(t *testing.T) {
	for name, c := range map[string]struct {
		ours   *Path
		theirs *field.Path
	}{
		"none":         {nil, nil},
		"root":         {NewPath("spec"), field.NewPath("spec")},
		"fields":       {NewPath("spec").Child("os").Child("name"), field.NewPath("spec", "os").Child("name")},
		"index":        {NewPath("spec").Child("containers").Index(12).Child("image"), field.NewPath("spec").Child("containers").Index(12).Child("image")},
		"negative":     {NewPath("a").Index(-1), field.NewPath("a").Index(-1)},
		"key":          {NewPath("metadata").Child("labels").Key("a.b/c[d]"), field.NewPath("metadata").Child("labels").Key("a.b/c[d]")},
		"empty key":    {NewPath("data").Key(""), field.NewPath("data").Key("")},
		"empty":        {NewPath(""), field.NewPath("")},
		"below empty":  {NewPath("").Child("a").Index(0), field.NewPath("").Child("a").Index(0)},
		"empty field":  {NewPath("a").Child("").Child("b"), field.NewPath("a").Child("").Child("b")},
		"of no path":   {(*Path)(nil).Child("spec").Index(1), (*field.Path)(nil).Child("spec").Index(1)},
		"dots, spaces": {NewPath("a.b").Child("{x, y}"), field.NewPath("a.b").Child("{x, y}")},
	} {
		if got, want := c.ours.String(), c.theirs.String(); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if got, want := c.ours.Field().String(), c.theirs.String(); got != want {
			t.Errorf("%s: %q, want %q for apimachinery", name, got, want)
		}
	}
}

// What apimachinery finds Here is told of where it is.
func TestJoinAt(t *testing.T) {
	var f Faults
	f.JoinAt(NewPath("spec").Child("list"), field.ErrorList{field.Required(Here, ""), field.Required(Here.Index(2).Child("name"), ""), field.Required(Here.Key("k"), "")})
	for i, want := range []string{"spec.list", "spec.list[2].name", "spec.list[k]"} {
		if got := f.List()[i].Field; got != want {
			t.Errorf("fault %d is at %q, want %q", i, got, want)
		}
	}
}

//go:noinline
func handedOn(f *Faults, at *Path, deep int) {
	f.NonEmpty(at.Child("name"), "x")
	f.NonNegative(at.Child("count"), 1)
	OneOf(f, at.Key("k"), "a", "a", "b")
	if deep > 0 {
		handedOn(f, at.Child("items").Index(deep), deep-1)
	}
}

// As long as nothing is wrong a path costs no memory, however deep it goes.
func TestPathsCostNothing(t *testing.T) {
	var f Faults
	if n := testing.AllocsPerRun(100, func() { handedOn(&f, NewPath("spec"), 9) }); n != 0 || !f.None() {
		t.Errorf("%v allocations, faults %v", n, f.List())
	}
}
