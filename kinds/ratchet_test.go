package kinds

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestRatchet(t *testing.T) {
	at := field.NewPath("spec", "rules")
	values := field.NewPath("spec", "term").Index(1).Child("labels", "values")
	old := field.ErrorList{
		field.Invalid(at.Index(0).Child("host"), "*x", "bad"), field.Required(field.NewPath("spec", "name"), ""),
		field.Invalid(values.Index(0), "!", "bad"), field.Required(values, ""),
		field.Invalid(at.Child("size"), 3, "not even: 3"), field.Invalid(at.Child("size"), 3, "too much"),
	}
	for _, c := range []struct {
		about string
		fault *field.Error
		stays bool
	}{
		{"the old fault, elsewhere in the list", field.Invalid(at.Index(3).Child("host"), "*x", "bad"), false},
		{"an element of a list, somewhere below", field.Invalid(values.Index(7), "!", "bad"), false},
		{"the list itself", field.Required(values, ""), true},
		{"a new value", field.Invalid(at.Index(0).Child("host"), "*y", "bad"), true},
		{"another fault of the value", field.Invalid(at.Index(0).Child("host"), "*x", "too long"), true},
		{"an old fault where none may stay", field.Required(field.NewPath("spec", "name"), ""), true},
		{"a fault with the words", field.Invalid(at.Child("size"), 3, "not even: 3"), false},
		{"a fault with other words", field.Invalid(at.Child("size"), 3, "too much"), true},
		{"a field that only begins alike", field.Invalid(at.Index(0).Child("hosts"), "*x", "bad"), true},
	} {
		got := Ratchet(field.ErrorList{c.fault}, old, []string{"spec.rules.host", "spec...labels.values[]", "spec.rules.size: not even"})
		if (len(got) == 1) != c.stays {
			t.Errorf("%s: left %v", c.about, got)
		}
	}
}

func TestAsides(t *testing.T) {
	at := field.NewPath("spec")
	faults, said := Asides(field.ErrorList{field.Required(at, ""), Aside("old, and let pass"), field.Forbidden(at, "no")})
	if len(faults) != 2 || faults[0].Type != field.ErrorTypeRequired || faults[1].Type != field.ErrorTypeForbidden {
		t.Errorf("faults %v", faults)
	}
	if len(said) != 1 || said[0] != "old, and let pass" {
		t.Errorf("said %q", said)
	}
}
