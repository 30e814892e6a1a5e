package resource

import (
	"bytes"
	"reflect"
)

// What has become of something, as a shape tells it.
const (
	added byte = iota + 1
	removed
	changed
)

// change writes the shape of the difference between two values of one type, both
// of which are there, and says whether there is one; nothing is written otherwise.
func (s *shaper) change(m *mould, a, b reflect.Value) bool {
	if s.failed = s.failed || len(s.b) > maxShape; s.failed {
		return true
	}
	if m.isLeaf() {
		return s.differing(m, a, b)
	}
	switch m.is {
	case reflect.Invalid:
		s.failed = true
		return true
	case reflect.Struct:
		return s.changeStruct(m, a, b)
	case reflect.Pointer:
		return s.changePointer(m, a, b)
	case reflect.Slice:
		return s.differing(m, a, b)
	case reflect.Map:
		return s.changeMap(m, a, b)
	case reflect.String:
		return a.String() != b.String()
	}
	return !a.Equal(b)
}

// changeStruct writes the fields that differ, each with who of the two has it.
func (s *shaper) changeStruct(m *mould, a, b reflect.Value) bool {
	start := len(s.b)
	for _, f := range m.fields {
		x, y, mark := a.Field(f.index), b.Field(f.index), len(s.b)
		s.field(f.index)
		s.b = append(s.b, 0)
		place := len(s.b) - 1
		if !s.changePart(f, x, y) {
			s.b = s.b[:mark]
			continue
		}
		if !f.zero(x) {
			s.b[place] |= 1
		}
		if !f.zero(y) {
			s.b[place] |= 2
		}
	}
	if len(s.b) == start {
		return false
	}
	s.b = append(s.b, end)
	return true
}

// changePart is change for a field, of which more is known than its type.
func (s *shaper) changePart(f part, a, b reflect.Value) bool {
	if !f.atomic && f.lone == nil {
		return s.change(f.mould, a, b)
	}
	mark, times := len(s.b), len(s.times)
	if !s.differing(f.mould, a, b) {
		return false
	}
	if s.failed || f.lone != nil && (a.Len() > 1 || b.Len() > 1) {
		return true
	}
	s.b, s.times = s.b[:mark], s.times[:times]
	for _, v := range []reflect.Value{a, b} {
		if s.some(v.Len() > 0) && f.lone != nil {
			s.loneItem(f, v)
		}
	}
	return true
}

func (s *shaper) changePointer(m *mould, a, b reflect.Value) bool {
	switch {
	case a.IsNil() && b.IsNil():
		return false
	case a.IsNil():
		s.b = append(s.b, added)
		s.whole(m.elem, b.Elem(), false)
		return true
	case b.IsNil():
		s.b = append(s.b, removed)
		s.whole(m.elem, a.Elem(), false)
		return true
	case a.Pointer() == b.Pointer():
		return false
	}
	mark := len(s.b)
	s.b = append(s.b, changed)
	if !s.change(m.elem, a.Elem(), b.Elem()) {
		s.b = s.b[:mark]
		return false
	}
	return true
}

// differing writes both values in full, unless they are the same: leaves, whose
// content is not long, and lists, whose items go by it.
func (s *shaper) differing(m *mould, a, b reflect.Value) bool {
	mark := len(s.b)
	s.whole(m, a, true)
	half := len(s.b)
	s.whole(m, b, true)
	if s.failed {
		return true
	}
	if bytes.Equal(s.b[mark:half], s.b[half:]) {
		s.b = s.b[:mark]
		return false
	}
	switch bytes := m.is == reflect.Slice && m.elem.is == reflect.Uint8; {
	case m.isLeaf() && !m.leaf.open:
		s.b = s.b[:mark] // a value that has changed, whichever it is
	case bytes:
		s.b = s.b[:mark]
		s.some(!a.IsNil())
		s.some(!b.IsNil())
	}
	return true
}

// changeMap writes the keys that have come, gone or got other values.
func (s *shaper) changeMap(m *mould, a, b reflect.Value) bool {
	if a.IsNil() && b.IsNil() || a.Pointer() == b.Pointer() {
		return false
	}
	start := len(s.b)
	s.some(!a.IsNil())
	s.some(!b.IsNil())
	s.some(a.Len() > 0)
	s.some(b.Len() > 0)
	found := a.IsNil() != b.IsNil()
	for _, k := range keysOf(a, b) {
		x, y, mark := a.MapIndex(k), b.MapIndex(k), len(s.b)
		s.key(k.String())
		s.b = append(s.b, changed)
		place := len(s.b) - 1
		switch {
		case !x.IsValid():
			s.b[place] = added
			s.whole(m.elem, y, false)
		case !y.IsValid():
			s.b[place] = removed
			s.whole(m.elem, x, false)
		case !s.change(m.elem, x, y):
			s.b = s.b[:mark]
			continue
		}
		found = true
	}
	if !found {
		s.b = s.b[:start]
		return false
	}
	s.b = append(s.b, end)
	return true
}
