package resource

import (
	"encoding/binary"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/structured-merge-diff/v6/schema"

	"github.com/sampan-dev/sampan/control/apiserver/typed"
)

// maxShape is the size in bytes of a shape that is worth remembering.
const maxShape = 8 << 10

// shaper writes shapes. A shape is what of an object, or of the difference between
// two, the record of field owners can depend on, whatever the typed schema says:
// which fields and keys there are, and all that lists contain, for items may go by
// their values. Values outside lists are left out, but for whether they are zero,
// for zero values may be omitted. Objects of one type and one shape have the same
// fields. Every part of a shape tells its own end.
//
// Of the times in lists only which are equal is told: no list goes by times, and
// conditions would never have the shape of others. Of a list that is one value to the
// field manager nothing is told but that it is there. An address, or an owner, that is the
// only item of a list is told by its number: no two pods have the same.
type shaper struct {
	b      []byte
	failed bool    // too large, or something that has no shape
	times  []int64 // those in lists so far, each once
	lone   []lone  // addresses and owners, each once for its field
}

// mould says how values of one Go type are written. It is made once and shared.
type mould struct {
	is     reflect.Kind // Invalid: values of this type have no shape
	leaf   leaf         // for types whose JSON is their own affair
	fields []part       // of a struct
	size   uintptr      // of a struct that is made of words, in bytes
	elem   *mould       // of a pointer, a slice, a map
}

// part is one field of a struct.
type part struct {
	index int
	*mould
	// atomic says that it is a list that is one value.
	atomic bool
	// lone is for lists whose items are told by their keys alone; else nil.
	lone *keyed
}

// leaf is a type that is one value in JSON, whatever it is in Go.
type leaf struct {
	// zero says whether the value may be omitted; nil: when it is Go's zero.
	zero func(reflect.Value) bool
	// text is the value as JSON tells it.
	text func([]byte, reflect.Value) ([]byte, bool)
	// open says that there may be fields in it after all.
	open bool
	// time, for times, is the value at the resolution of its JSON.
	time func(reflect.Value) int64
}

// moulds are by reflect.Type; there are as many as the API has types.
var moulds sync.Map

var leaves = map[reflect.Type]leaf{
	reflect.TypeFor[metav1.Time](): {
		zero: func(v reflect.Value) bool { return v.Addr().Interface().(*metav1.Time).IsZero() },
		time: func(v reflect.Value) int64 { return v.Addr().Interface().(*metav1.Time).Unix() },
	},
	reflect.TypeFor[metav1.MicroTime](): {
		zero: func(v reflect.Value) bool { return v.Addr().Interface().(*metav1.MicroTime).IsZero() },
		time: func(v reflect.Value) int64 { return v.Addr().Interface().(*metav1.MicroTime).UnixMicro() },
	},
	reflect.TypeFor[metav1.Duration](): {text: func(b []byte, v reflect.Value) ([]byte, bool) {
		return binary.AppendVarint(b, v.Field(0).Int()), true
	}},
	reflect.TypeFor[intstr.IntOrString](): {text: func(b []byte, v reflect.Value) ([]byte, bool) {
		is := v.Addr().Interface().(*intstr.IntOrString)
		return appendText(append(b, byte(is.Type)), is.String()), true
	}},
	reflect.TypeFor[resource.Quantity](): {text: func(b []byte, v reflect.Value) ([]byte, bool) {
		q := *v.Addr().Interface().(*resource.Quantity) // a copy: String remembers what it says
		return appendText(b, q.String()), true
	}},
	reflect.TypeFor[runtime.RawExtension](): {open: true, text: func(b []byte, v reflect.Value) ([]byte, bool) {
		raw := v.Addr().Interface().(*runtime.RawExtension)
		return appendText(b, string(raw.Raw)), raw.Object == nil
	}},
}

// mouldOf is the mould of a type.
func mouldOf(t reflect.Type) *mould {
	if m, ok := moulds.Load(t); ok {
		return m.(*mould)
	}
	made := map[reflect.Type]*mould{}
	cast(t, made)
	for t, m := range made {
		moulds.LoadOrStore(t, m) // whoever is second has made an equal one
	}
	m, _ := moulds.Load(t)
	return m.(*mould)
}

var marshaler = reflect.TypeFor[json.Marshaler]()

// cast makes the mould of t and of all that is in it.
func cast(t reflect.Type, made map[reflect.Type]*mould) *mould {
	if m, ok := made[t]; ok {
		return m
	}
	m := &mould{is: t.Kind()}
	made[t] = m
	if l, ok := leaves[t]; ok {
		m.leaf = l
		return m
	}
	if t.Kind() != reflect.Pointer && (t.Implements(marshaler) || reflect.PointerTo(t).Implements(marshaler)) {
		m.is = reflect.Invalid
		return m
	}
	switch t.Kind() {
	case reflect.Struct:
		if t.Align() == int(unsafe.Alignof(uint64(0))) {
			m.size = t.Size()
		}
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Type == reflect.TypeFor[metav1.TypeMeta]() || f.Type == reflect.TypeFor[[]metav1.ManagedFieldsEntry]() {
				continue // the caller knows
			}
			m.fields = append(m.fields, partOf(t, i, cast(f.Type, made)))
		}
	case reflect.Pointer, reflect.Slice:
		m.elem = cast(t.Elem(), made)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			m.is = reflect.Invalid
			return m
		}
		m.elem = cast(t.Elem(), made)
	case reflect.Bool, reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
	default:
		m.is = reflect.Invalid
	}
	return m
}

func partOf(t reflect.Type, i int, m *mould) part {
	p := part{index: i, mould: m}
	name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
	if m.is != reflect.Slice || name == "" {
		return p
	}
	switch l := typed.ListOf(t, name); {
	case l == nil:
	case l.ElementRelationship == schema.Atomic:
		p.atomic = true
	default:
		p.lone = keyedList(t.Field(i).Type.Elem(), name, l.Keys)
	}
	return p
}

func (m *mould) isLeaf() bool { return m.leaf.text != nil || m.leaf.time != nil }

func (m *mould) zero(v reflect.Value) bool {
	if m.leaf.zero != nil {
		return m.leaf.zero(placed(v))
	}
	if m.size > 0 && v.CanAddr() && blank(v.Addr().UnsafePointer(), m.size) {
		return true // most structs are: no need to look at each field
	}
	return v.IsZero()
}

// blank says whether so many bytes, whole words, are all zero.
func blank(at unsafe.Pointer, size uintptr) bool {
	for _, word := range unsafe.Slice((*uint64)(at), size/unsafe.Sizeof(uint64(0))) {
		if word != 0 {
			return false
		}
	}
	return true
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// end closes what has as many parts as it likes; the number of a field follows it
// in no form, for those are written one higher.
const end = 0

// key writes the key of a map, which is not taken for an end either.
func (s *shaper) key(k string) {
	s.b = append(binary.AppendUvarint(s.b, uint64(len(k))+1), k...)
}

func (s *shaper) field(i int) { s.b = binary.AppendUvarint(s.b, uint64(i)+1) } //nolint:gosec // an index

// whole writes the shape of a value: with content, all it contains.
func (s *shaper) whole(m *mould, v reflect.Value, content bool) {
	if s.failed = s.failed || len(s.b) > maxShape; s.failed {
		return
	}
	if m.isLeaf() {
		s.leafText(m, v, content)
		return
	}
	switch m.is {
	case reflect.Invalid:
		s.failed = true
	case reflect.Struct:
		for _, f := range m.fields {
			if in := v.Field(f.index); !f.zero(in) {
				s.field(f.index)
				s.part(f, in, content)
			}
		}
		s.b = append(s.b, end)
	case reflect.Pointer:
		if s.some(!v.IsNil()) {
			s.whole(m.elem, v.Elem(), content)
		}
	case reflect.Slice:
		s.list(m, v, content)
	case reflect.Map:
		s.entries(m, v, content)
	default:
		if content {
			s.scalar(v)
		}
	}
}

// part writes the shape of a field that is there.
func (s *shaper) part(f part, v reflect.Value, content bool) {
	switch {
	case f.atomic && !content:
		s.some(v.Len() > 0)
	case f.lone != nil && !content && v.Len() == 1:
		s.loneItem(f, v)
	default:
		s.whole(f.mould, v, content)
	}
}

// some writes whether something is there.
func (s *shaper) some(is bool) bool {
	if is {
		s.b = append(s.b, 1)
	} else {
		s.b = append(s.b, 0)
	}
	return is
}

func (s *shaper) leafText(m *mould, v reflect.Value, content bool) {
	v = placed(v)
	if !s.some(!m.zero(v)) || !content && m.leaf.zero != nil {
		return
	}
	if m.leaf.time != nil {
		s.moment(m.leaf.time(v))
		return
	}
	var ok bool
	if s.b, ok = m.leaf.text(s.b, v); !ok {
		s.failed = true
	}
}

// moment writes which of the times so far a time is.
func (s *shaper) moment(t int64) {
	i := slices.Index(s.times, t)
	if i < 0 {
		i = len(s.times)
		s.times = append(s.times, t)
	}
	s.field(i)
}

// placed is v where it has an address: values of maps have none.
func placed(v reflect.Value) reflect.Value {
	if v.CanAddr() {
		return v
	}
	held := reflect.New(v.Type()).Elem()
	held.Set(v)
	return held
}

func (s *shaper) list(m *mould, v reflect.Value, content bool) {
	if !s.some(!v.IsNil()) {
		return
	}
	if m.elem.is == reflect.Uint8 { // a value, not a list
		if content {
			s.b = appendText(s.b, string(v.Bytes()))
		}
		return
	}
	s.b = binary.AppendUvarint(s.b, uint64(v.Len())) //nolint:gosec // a length
	for i := range v.Len() {
		s.whole(m.elem, v.Index(i), true)
	}
}

func (s *shaper) entries(m *mould, v reflect.Value, content bool) {
	if !s.some(!v.IsNil()) {
		return
	}
	s.b = binary.AppendUvarint(s.b, uint64(v.Len())) //nolint:gosec // a length
	for _, k := range keysOf(v, reflect.Value{}) {
		s.key(k.String())
		s.whole(m.elem, v.MapIndex(k), content)
	}
}

// keysOf are the keys of one map or of two, sorted.
func keysOf(a, b reflect.Value) []reflect.Value {
	keys := make([]reflect.Value, 0, a.Len())
	for it := a.MapRange(); it.Next(); {
		keys = append(keys, it.Key())
	}
	if b.IsValid() {
		for it := b.MapRange(); it.Next(); {
			if k := it.Key(); !a.MapIndex(k).IsValid() {
				keys = append(keys, k)
			}
		}
	}
	if len(keys) > 1 {
		slices.SortFunc(keys, func(x, y reflect.Value) int {
			switch a, b := x.String(), y.String(); {
			case a < b:
				return -1
			case a > b:
				return 1
			}
			return 0
		})
	}
	return keys
}

func (s *shaper) scalar(v reflect.Value) {
	switch {
	case v.Kind() == reflect.String:
		s.b = appendText(s.b, v.String())
	case v.Kind() == reflect.Bool:
		s.some(v.Bool())
	case v.CanInt():
		s.b = binary.AppendVarint(s.b, v.Int())
	default:
		s.b = binary.AppendUvarint(s.b, v.Uint())
	}
}
