package typed

import (
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

// ListOf is how the field manager takes a list that is a field, by its JSON name, of
// a built-in Go type: as one value, or item by item, and by which keys. It is nil
// for what is no list, and for types that the schema does not name, such as those
// whose fields are other types' own.
func ListOf(owner reflect.Type, field string) *schema.List {
	types := byName()
	atom, ok := types[modelName(owner)]
	if !ok || atom.Map == nil {
		return nil
	}
	i := slices.IndexFunc(atom.Fields, func(f schema.StructField) bool { return f.Name == field })
	if i < 0 {
		return nil
	}
	ref := atom.Fields[i].Type
	if ref.NamedType != nil {
		atom = types[*ref.NamedType]
	} else {
		atom = ref.Inlined
	}
	if atom.List == nil || ref.ElementRelationship == nil {
		return atom.List
	}
	own := *atom.List
	own.ElementRelationship = *ref.ElementRelationship
	return &own
}

// Atomic says that the field manager takes values of a built-in Go type as one each,
// whatever is in them.
func Atomic(t reflect.Type) bool {
	atom, ok := byName()[modelName(t)]
	return ok && atom.Map != nil && atom.Map.ElementRelationship == schema.Atomic
}

// byName are the types of the schema by their names; none if it is damaged, of which
// Converter tells.
var byName = sync.OnceValue(func() map[string]schema.Atom {
	types, err := unpack(packed)
	if err != nil {
		return nil
	}
	named := make(map[string]schema.Atom, len(types))
	for _, t := range types {
		named[t.Name] = t.Atom
	}
	return named
})

// modelName is the name of a Go type in published schemas: its package's path, with
// the parts of the host turned round, and dots.
func modelName(t reflect.Type) string {
	host, rest, _ := strings.Cut(t.PkgPath(), "/")
	parts := strings.Split(host, ".")
	slices.Reverse(parts)
	return strings.ReplaceAll(path.Join(strings.Join(parts, "."), rest, t.Name()), "/", ".")
}
