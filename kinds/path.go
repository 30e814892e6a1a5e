package kinds

import (
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Path is where in an object something is: a field, or an item of a list or a map, of
// what its parent is the path of. It is upstream's field.Path, word for word, for checks
// that mostly find nothing: as no method keeps its receiver, a path costs no memory as
// long as it is only handed down, and becomes text when there is a fault to tell.
//
// So that it stays that way, whoever takes a path only hands it on, by a direct call, or
// tells a fault by it; kept in a struct, or given to a function that is a value, it
// lies in the heap, as do those that it goes on from. A nil Path is no path.
type Path struct {
	parent *Path
	name   string // the field, or the key
	index  int
	is     element
}

// element is what the last part of a path is.
type element uint8

const (
	fieldElement element = iota
	keyElement
	indexElement
)

// NewPath is the path of a field of the object itself.
func NewPath(name string) *Path { return &Path{name: name} }

// Child is the path of a field of what p is.
func (p *Path) Child(name string) *Path { return &Path{parent: p, name: name} }

// Index is the path of an item of the list that p is.
func (p *Path) Index(i int) *Path { return &Path{parent: p, index: i, is: indexElement} }

// Key is the path of an item of the map that p is, or of the list that goes by keys.
func (p *Path) Key(key string) *Path { return &Path{parent: p, name: key, is: keyElement} }

// String is the path as faults tell it: spec.containers[0].image.
func (p *Path) String() string {
	if p == nil {
		return (*field.Path)(nil).String()
	}
	return string(p.append(nil))
}

// append keeps nothing of p, not even its words: see Path.
func (p *Path) append(b []byte) []byte {
	if p.parent != nil {
		b = p.parent.append(b)
	}
	switch {
	case p.is == indexElement:
		return append(strconv.AppendInt(append(b, '['), int64(p.index), 10), ']')
	case p.is == keyElement || p.name == "":
		return append(append(append(b, '['), p.name...), ']')
	case p.parent != nil:
		b = append(b, '.')
	}
	return append(b, p.name...)
}

// Field is the path for a check of apimachinery's, and for errors that are made without
// Faults.
func (p *Path) Field() *field.Path {
	if p == nil {
		return nil
	}
	parent := p.parent.Field()
	switch p.is {
	case indexElement:
		return parent.Index(p.index)
	case keyElement:
		return parent.Key(strings.Clone(p.name))
	}
	return parent.Child(strings.Clone(p.name))
}
