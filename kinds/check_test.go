package kinds

import (
	"testing"
)

// A finalizer is one of the standard ones, or somebody's.
func TestFinalizers(t *testing.T) {
	errs := Finalizers([]string{"kubernetes", "orphan", "foregroundDeletion", "example.com/a", "mine"}, NewPath("metadata").Child("finalizers"))
	const want = `metadata.finalizers[4]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`
	if len(errs) != 1 || errs[0].Error() != want {
		t.Errorf("found %v", errs)
	}
}

// Some fields list what they support sorted, others as upstream wrote it down.
func TestSupportedValues(t *testing.T) {
	at := NewPath("x")
	var f Faults
	OneOf(&f, at, "c", "b", "a")
	Listed(&f, at, "c", "b", "a")
	RequiredListed(&f, at, "", "b", "a")
	RequiredOneOf(&f, at, "a", "b", "a")
	Listed(&f, at, "b", "b", "a")
	for i, want := range []string{
		`x: Unsupported value: "c": supported values: "a", "b"`,
		`x: Unsupported value: "c": supported values: "b", "a"`,
		`x: Required value`,
	} {
		if f.Count() <= i || f.List()[i].Error() != want {
			t.Fatalf("faults are %v", f.List())
		}
	}
	if f.Count() != 3 {
		t.Errorf("faults are %v", f.List())
	}
}
