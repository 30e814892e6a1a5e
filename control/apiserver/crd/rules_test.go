package crd

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"

	"github.com/sampan-dev/sampan/kinds"
)

// TestOldFaultIsTold: what broke a rule before may stay, and its owner hears of it.
func TestOldFaultIsTold(t *testing.T) {
	def, ok := prepared(asJSON(t, boats))
	if !ok {
		t.Fatal("the definition is refused")
	}
	f, err := newFamily(config(), def)
	if err != nil {
		t.Fatal(err)
	}
	boat := func(text string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{}
		raw := asJSON(t, "apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {name: a, namespace: x}\n"+text)
		if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &u.Object); err != nil {
			t.Fatal(err)
		}
		f.hub.setDefaults(u)
		return u
	}
	old := boat("spec: {planks: 3, crew: 9}")
	for _, c := range []struct {
		about, next string
		fault, told string
	}{
		{"as it was", "spec: {planks: 3, crew: 9}\nstatus: {crew: 1}", "", "too many aboard"},
		{"another breach", "spec: {planks: 3, crew: 10}", "too many aboard", ""},
		{"mended", "spec: {planks: 3, crew: 2}", "", ""},
	} {
		faults, said := kinds.Asides(f.hub.validateUpdate(boat(c.next), old))
		got := ""
		if len(faults) > 0 {
			got = faults.ToAggregate().Error()
		}
		if told := strings.Join(said, "\n"); (got == "") != (c.fault == "") || !strings.Contains(got, c.fault) || (told == "") != (c.told == "") || !strings.Contains(told, c.told) {
			t.Errorf("%s: faults %q, told %q", c.about, got, told)
		}
	}
}
