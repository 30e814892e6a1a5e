// Package typed has the typed schema of all built-in kinds, by which the field
// manager knows lists that are sets or maps from lists that are one value: what
// client-go publishes as YAML, and the kinds that it leaves out. Here it lies
// packed, for parsing the YAML takes longer than all else at the start of a server.
//
// schema.bin is made by "go test ./control/apiserver/typed -update".
package typed

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

//go:embed schema.bin
var packed []byte

// maxUnpacked bounds what schema.bin may unpack to, in bytes.
const maxUnpacked = 8 << 20

// Converter makes the type converter of the built-in kinds, whose Go types s
// knows. It takes about a millisecond.
func Converter(s *runtime.Scheme) (managedfields.TypeConverter, error) {
	types, err := unpack(packed)
	if err != nil {
		return nil, fmt.Errorf("typed schema of the built-in kinds: %w", err)
	}
	return managedfields.NewSchemeTypeConverter(s, &typed.Parser{Schema: schema.Schema{Types: types}}), nil
}

// The format: a table of strings, each with its length in front, and then the
// types. Numbers are varints, a string is its place in the table, a list has its
// length in front, and what may be missing a byte that says which parts there are.

// The bits of an atom.
const (
	hasScalar = 1 << iota
	hasList
	hasMap
)

// The bits of a reference to a type.
const (
	isNamed = 1 << iota
	hasRelationship
	isNullable
)

func unpack(packed []byte) ([]schema.TypeDef, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(z, maxUnpacked))
	if err != nil {
		return nil, err
	}
	r := &reader{rest: raw}
	r.words = make([]string, r.count())
	for i := range r.words {
		r.words[i] = string(r.take(r.count()))
	}
	types := make([]schema.TypeDef, r.count())
	for i := range types {
		types[i].Name = r.word()
		types[i].Atom = r.atom()
	}
	if !r.bad && len(r.rest) > 0 {
		r.bad = true
	}
	if r.bad {
		return nil, errors.New("damaged")
	}
	return types, nil
}

// reader reads the format. Once something is wrong it reads nothing but zeroes.
type reader struct {
	rest  []byte
	words []string
	bad   bool
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// count is a number of things that are yet to come, each of a byte at least.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return 0
	}
	return int(n) //nolint:gosec // no more than there are bytes
}

func (r *reader) take(n int) []byte {
	taken := r.rest[:min(n, len(r.rest))]
	r.rest = r.rest[len(taken):]
	return taken
}

func (r *reader) word() string {
	n := r.number()
	if n >= uint64(len(r.words)) {
		r.bad = true
		return ""
	}
	return r.words[n]
}

func (r *reader) atom() (a schema.Atom) {
	parts := r.number()
	if parts&hasScalar != 0 {
		s := schema.Scalar(r.word())
		a.Scalar = &s
	}
	if parts&hasList != 0 {
		a.List = &schema.List{ElementType: r.reference(), ElementRelationship: schema.ElementRelationship(r.word())}
		if n := r.count(); n > 0 {
			a.Keys = make([]string, n)
			for i := range a.Keys {
				a.Keys[i] = r.word()
			}
		}
	}
	if parts&hasMap != 0 {
		a.Map = &schema.Map{ElementType: r.reference(), ElementRelationship: schema.ElementRelationship(r.word())}
		if n := r.count(); n > 0 {
			a.Fields = make([]schema.StructField, n)
			for i := range a.Fields {
				a.Fields[i] = r.field()
			}
		}
		a.Unions = r.unions()
	}
	return a
}

func (r *reader) reference() (t schema.TypeRef) {
	parts := r.number()
	if parts&isNamed != 0 {
		name := r.word()
		t.NamedType = &name
	} else {
		t.Inlined = r.atom()
	}
	if parts&hasRelationship != 0 {
		how := schema.ElementRelationship(r.word())
		t.ElementRelationship = &how
	}
	t.Nullable = parts&isNullable != 0
	return t
}

// field reads a field; its default is a string of JSON, none when that is empty.
func (r *reader) field() schema.StructField {
	f := schema.StructField{Name: r.word(), Type: r.reference()}
	if text := r.word(); text != "" && json.Unmarshal([]byte(text), &f.Default) != nil {
		r.bad = true
	}
	if n, ok := f.Default.(float64); ok && n == float64(int64(n)) {
		f.Default = int64(n) // which YAML would have told apart
	}
	return f
}

func (r *reader) unions() []schema.Union {
	n := r.count()
	if n == 0 {
		return nil
	}
	unions := make([]schema.Union, n)
	for i := range unions {
		u := &unions[i]
		if r.number() != 0 {
			name := r.word()
			u.Discriminator = &name
		}
		u.DeduceInvalidDiscriminator = r.number() != 0
		u.Fields = make([]schema.UnionField, r.count())
		for j := range u.Fields {
			u.Fields[j] = schema.UnionField{FieldName: r.word(), DiscriminatorValue: r.word()}
		}
	}
	return unions
}
