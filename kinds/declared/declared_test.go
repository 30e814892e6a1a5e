package declared_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

type item struct{ Name, Class string }

type thing struct {
	Class string
	Fixed string
	Items []item
}

// check declares: +k8s:required +k8s:format=k8s-short-name class, +k8s:immutable
// fixed, +k8s:maxItems=2 +k8s:listMapKey=name items, whose class is an enum.
func check(now, old *thing) *declared.Rules {
	r := declared.For(old)
	declared.Required(r, now, old, kinds.NewPath("class"), func(t *thing) string { return t.Class }, validate.ShortName[string])
	declared.Fixed(r, now, old, kinds.NewPath("fixed"), func(t *thing) string { return t.Fixed }, func(value string, at *kinds.Path) {
		declared.String(r, value, at, declared.MaxBytes[string](3))
	})
	declared.List(r, now, old, kinds.NewPath("items"), func(t *thing) []item { return t.Items }, declared.Each[item]{
		Most: 2, Same: func(a, b *item) bool { return a.Name == b.Name },
		Check: func(now, old *item, at *kinds.Path) {
			declared.Text(r, now, old, at.Child("class"), func(i *item) string { return i.Class }, declared.OneOf("b", "a"))
		},
	})
	return r
}

func TestRules(t *testing.T) {
	const short = "Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
	for name, c := range map[string]struct {
		now, old *thing
		want     []string
	}{
		"right":             {now: &thing{Class: "a", Fixed: "abc", Items: []item{{"x", "a"}, {"y", ""}}}},
		"missing":           {now: &thing{}, want: []string{"class: Required value"}},
		"in their order":    {now: &thing{Class: "A", Fixed: "long"}, want: []string{"class: " + short, "fixed: Too long: may not be more than 3 bytes"}},
		"too many":          {now: &thing{Class: "a", Items: []item{{"x", "?"}, {"x", "?"}, {"x", "?"}}}, want: []string{"items: Too many: 3: must have at most 2 items"}},
		"twice, and sorted": {now: &thing{Class: "a", Items: []item{{"x", "?"}, {"x", "a"}}}, want: []string{`items[1]: Duplicate value: {"Name":"x","Class":"a"}`, `items[0].class: Unsupported value: "?": supported values: "a", "b"`}},
		"as it was":         {now: &thing{Class: "A", Items: []item{{"x", "?"}}}, old: &thing{Class: "A", Items: []item{{"x", "?"}}}},
		"an item as it was": {now: &thing{Class: "a", Items: []item{{"y", "?"}, {"x", "?"}}}, old: &thing{Class: "a", Items: []item{{"x", "?"}}}, want: []string{`items[0].class: Unsupported value: "?": supported values: "a", "b"`}},
		"changed":           {now: &thing{Class: "A", Fixed: "long"}, old: &thing{Class: "a"}, want: []string{"class: " + short, "fixed: Invalid value: null: field is immutable"}},
	} {
		t.Run(name, func(t *testing.T) { same(t, check(c.now, c.old).List(), c.want) })
	}
}

func TestBehind(t *testing.T) {
	var f kinds.Faults
	f.Required(kinds.NewPath("class"), "by hand: goes")
	f.Forbidden(kinds.NewPath("class"), "another kind of fault: stays")
	f.Required(kinds.NewPath("items"), "another field: stays")
	f.Join(field.ErrorList{field.Required(kinds.NewPath("class").Field(), "another origin: stays").WithOrigin("elsewhere")})
	same(t, check(&thing{}, nil).Behind(f.List()), []string{
		"class: Forbidden: another kind of fault: stays", "items: Required value: another field: stays",
		"class: Required value: another origin: stays", "class: Required value",
	})
}

func same(t *testing.T, got field.ErrorList, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range got {
		if got[i].Error() != want[i] {
			t.Errorf("fault %d: got %q, want %q", i, got[i].Error(), want[i])
		}
	}
}

// A name that is missing is missed by rules by hand, once.
func TestLongName(t *testing.T) {
	for name, want := range map[string]int{"": 0, "a.b": 0, "Bad_Name": 1} {
		if faults := declared.LongName(name); len(faults) != want {
			t.Errorf("%q has %d faults, want %d: %v", name, len(faults), want, faults)
		}
	}
}
