package kinds

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A finalizer is one of the standard ones, or somebody's.
func TestFinalizers(t *testing.T) {
	errs := Finalizers([]string{"kubernetes", "orphan", "foregroundDeletion", "example.com/a", "mine"}, field.NewPath("metadata", "finalizers"))
	const want = `metadata.finalizers[4]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`
	if len(errs) != 1 || errs[0].Error() != want {
		t.Errorf("found %v", errs)
	}
}
