package kinds

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestRatchet(t *testing.T) {
	at := field.NewPath("spec", "rules")
	old := field.ErrorList{field.Invalid(at.Index(0).Child("host"), "*x", "bad"), field.Required(field.NewPath("spec", "name"), "")}
	for _, c := range []struct {
		about string
		fault *field.Error
		stays bool
	}{
		{"the old fault, elsewhere in the list", field.Invalid(at.Index(3).Child("host"), "*x", "bad"), false},
		{"a new value", field.Invalid(at.Index(0).Child("host"), "*y", "bad"), true},
		{"another fault of the value", field.Invalid(at.Index(0).Child("host"), "*x", "too long"), true},
		{"an old fault where none may stay", field.Required(field.NewPath("spec", "name"), ""), true},
		{"a field that only begins alike", field.Invalid(at.Index(0).Child("hosts"), "*x", "bad"), true},
	} {
		got := Ratchet(field.ErrorList{c.fault}, old, []string{"spec.rules.host"})
		if (len(got) == 1) != c.stays {
			t.Errorf("%s: left %v", c.about, got)
		}
	}
}
