package plan

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the shape anew, under a new version or level")

// What the keeper is told has the fields that are written down under this version and
// level. An older keeper leaves out what it does not know, and does the rest: a further
// field needs a new Version, which has such a keeper replaced, or a Level to ask for.
func TestShape(t *testing.T) {
	const name = "testdata/shape.txt"
	lines := shapeOf(reflect.TypeFor[Plan](), nil)
	for _, of := range []reflect.Type{reflect.TypeFor[Request](), reflect.TypeFor[Answer](), reflect.TypeFor[Report](), reflect.TypeFor[Exit]()} {
		lines = shapeOf(of, lines)
	}
	head := fmt.Sprintf("version %d, level %d", Version, Level)
	got := head + "\n" + strings.Join(lines, "\n") + "\n"
	raw, err := os.ReadFile(name)
	if string(raw) == got {
		return
	}
	if err == nil && strings.HasPrefix(string(raw), head+"\n") {
		for _, l := range lines {
			if !slices.Contains(strings.Split(string(raw), "\n"), l) {
				t.Errorf("new: %s", l)
			}
		}
		t.Fatalf("the shape of what the keeper is told has changed, and is still of %s: a keeper from before would leave the difference out", head)
	}
	if !*update {
		t.Fatalf("%s is not of %s: go test -run TestShape -update", name, head)
	}
	if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
		t.Fatal(err)
	}
}

// shapeOf adds a type's fields to lines, and those of the types that they are of.
func shapeOf(of reflect.Type, lines []string) []string {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, of.Name()+".") }) {
		return lines
	}
	for f := range of.Fields() {
		lines = append(lines, fmt.Sprintf("%s.%s %s", of.Name(), f.Name, f.Type))
	}
	for f := range of.Fields() {
		lines = shapeOf(f.Type, lines)
	}
	return lines
}
