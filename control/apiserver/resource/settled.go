package resource

import (
	"reflect"
	"slices"
	"sync"
	"time"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/kinds"
)

// An object is settled when decoding its stored form gives the very same. Most that
// are about to be stored are, and then what the cache is told need not be decoded. What
// protobuf does not keep makes an object unsettled: that a list or a map is empty
// rather than missing, the fractions and the zone of a time, the way a quantity was
// written, the kind of an object inside another.
//
// It is decided per Go type, once, what there is to look at in its values. Whatever has
// no rule here is unsettled.

// expect tells the cache that value, the stored form of obj, is about to be written. The
// cache gets an object of its own, whose insides are obj's: nobody writes to those any
// more. Nil when the cache has to decode it: it is not running, or obj is not settled;
// objects of custom kinds pass through their definition, others through a completion of
// the kind's. A new object that nobody watches for is left to whoever will ask for it.
func (st *storage) expect(key string, value []byte, obj kinds.Object, is news) (*cache.Cache, *cache.Expected) {
	if st.kind.Custom != nil || st.kind.Strategy.Loaded != nil {
		return nil, nil
	}
	c := st.running()
	if c == nil || is == newObject && !c.Watched(obj.GetNamespace()) {
		return nil, nil
	}
	given, ok := settledCopy(obj, is == settledObject)
	if !ok {
		return nil, nil
	}
	given.GetObjectKind().SetGroupVersionKind(st.kind.GVK)
	return c, c.Expect(key, value, given)
}

// news is what is known of an object that is about to be stored.
type news int

const (
	newObject news = iota
	changedObject
	// settledObject: it was made of a settled one by who knows what unsettles.
	settledObject
)

// settledCopy is a copy of obj's outermost struct, with the times that the server gives
// each object as they will be stored; false when that does not make it settled. What is
// known to be settled is not looked at.
func settledCopy(obj kinds.Object, known bool) (kinds.Object, bool) {
	if _, ok := obj.(interface{ Unmarshal([]byte) error }); !ok {
		return nil, false
	}
	from := reflect.ValueOf(obj)
	if from.Kind() != reflect.Pointer || from.IsNil() || from.Elem().Kind() != reflect.Struct {
		return nil, false
	}
	to := reflect.New(from.Type().Elem())
	to.Elem().Set(from.Elem())
	given := to.Interface().(kinds.Object)
	if known {
		return given, true
	}
	given.SetCreationTimestamp(settledTime(given.GetCreationTimestamp()))
	given.SetManagedFields(settledOwners(given.GetManagedFields()))
	return given, topOf(from.Type().Elem()).settled(to.UnsafePointer())
}

// settledOwners is a record of field owners with its times as they will be stored, the
// record itself when they are. Whoever sends back in this process what a write has
// answered with names the record that is stored, and so leaves it alone.
func settledOwners(owners []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	unsettled := func(e metav1.ManagedFieldsEntry) bool { return e.Time != nil && *e.Time != settledTime(*e.Time) }
	if !slices.ContainsFunc(owners, unsettled) {
		return owners
	}
	owners = slices.Clone(owners)
	for i := range owners {
		if unsettled(owners[i]) {
			when := settledTime(*owners[i].Time)
			owners[i].Time = &when
		}
	}
	return owners
}

// settledTime is t as decoding its stored form gives it.
func settledTime(t metav1.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.Unix(t.Unix(), 0)
}

// sediment is what there is to look at in the values of a type; without a rule, nothing.
// Rules are given where a value is, not what it is: to take each field out of its struct
// as a value would cost more than to decode some objects.
type sediment struct {
	rule func(at unsafe.Pointer) bool
	// open types are being looked into: they may have a rule later.
	open bool
}

func (s *sediment) settled(at unsafe.Pointer) bool { return s.rule == nil || s.rule(at) }

func (s *sediment) always() bool { return s.rule == nil && !s.open }

// tops are by the types of objects; as many as the API has.
var tops sync.Map

var typeMeta = reflect.TypeFor[metav1.TypeMeta]()

// topOf is of a type of objects, whose own kind is not looked at.
func topOf(t reflect.Type) *sediment {
	if have, ok := tops.Load(t); ok {
		return have.(*sediment)
	}
	made := &sediment{rule: fieldsRule(t, func(f reflect.StructField) bool { return f.Type != typeMeta }, map[reflect.Type]*sediment{})}
	have, _ := tops.LoadOrStore(t, made) // whoever is second has made an equal one
	return have.(*sediment)
}

// sedimentOf is of a type anywhere else.
func sedimentOf(t reflect.Type, made map[reflect.Type]*sediment) *sediment {
	if have, ok := made[t]; ok {
		return have
	}
	s := &sediment{open: true}
	made[t] = s
	s.rule = ruleOf(t, made)
	s.open = false
	return s
}

// exact are the types whose values are compared with what decoding makes of them.
var exact = map[reflect.Type]func(unsafe.Pointer) bool{
	reflect.TypeFor[metav1.Time](): func(at unsafe.Pointer) bool {
		t := *(*metav1.Time)(at)
		return t == settledTime(t)
	},
	reflect.TypeFor[metav1.MicroTime](): func(at unsafe.Pointer) bool {
		t := *(*metav1.MicroTime)(at)
		return t == metav1.MicroTime{} || t == metav1.NewMicroTime(time.UnixMicro(t.UnixMicro()))
	},
	reflect.TypeFor[resource.Quantity](): func(at unsafe.Pointer) bool {
		return settledQuantity(*(*resource.Quantity)(at)) // a copy: String remembers what it says
	},
	// Without reflection, for most pods have some.
	reflect.TypeFor[corev1.ResourceList](): func(at unsafe.Pointer) bool {
		list := *(*corev1.ResourceList)(at)
		for _, q := range list {
			if !settledQuantity(q) {
				return false
			}
		}
		return list == nil || len(list) > 0
	},
	typeMeta: func(at unsafe.Pointer) bool { return *(*metav1.TypeMeta)(at) == metav1.TypeMeta{} },
}

func settledQuantity(q resource.Quantity) bool {
	was := q
	decoded, err := resource.ParseQuantity(q.String())
	return err == nil && decoded == was
}

// ruleOf is nil when all values of a type are settled.
func ruleOf(t reflect.Type, made map[reflect.Type]*sediment) func(unsafe.Pointer) bool {
	if rule, ok := exact[t]; ok {
		return rule
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return nil
	case reflect.Struct:
		return fieldsRule(t, func(reflect.StructField) bool { return true }, made)
	case reflect.Pointer:
		elem := sedimentOf(t.Elem(), made)
		if elem.always() {
			return nil
		}
		return func(at unsafe.Pointer) bool {
			to := *(*unsafe.Pointer)(at)
			return to == nil || elem.settled(to)
		}
	case reflect.Slice:
		return listRule(t, made)
	case reflect.Map:
		return mapRule(t, made)
	}
	return zeroRule(t) // an interface: a field that is not encoded
}

func zeroRule(t reflect.Type) func(unsafe.Pointer) bool {
	return func(at unsafe.Pointer) bool { return reflect.NewAt(t, at).Elem().IsZero() }
}

// fieldsRule looks at the fields that are wanted. Those that protobuf does not have must
// be zero.
func fieldsRule(t reflect.Type, wanted func(reflect.StructField) bool, made map[reflect.Type]*sediment) func(unsafe.Pointer) bool {
	type field struct {
		offset uintptr
		*sediment
	}
	var looked []field
	for i := range t.NumField() {
		f := t.Field(i)
		if !wanted(f) {
			continue
		}
		if tag := f.Tag.Get("protobuf"); (tag == "" || tag == "-") && f.Type != typeMeta {
			looked = append(looked, field{f.Offset, &sediment{rule: zeroRule(f.Type)}})
			continue
		}
		if in := sedimentOf(f.Type, made); !in.always() {
			looked = append(looked, field{f.Offset, in})
		}
	}
	if len(looked) == 0 {
		return nil
	}
	return func(at unsafe.Pointer) bool {
		for i := range looked {
			if !looked[i].settled(unsafe.Add(at, looked[i].offset)) {
				return false
			}
		}
		return true
	}
}

// slice is what a slice is in memory.
type slice struct {
	first    unsafe.Pointer
	len, cap int
}

// listRule: no list is empty, and no item missing.
func listRule(t reflect.Type, made map[reflect.Type]*sediment) func(unsafe.Pointer) bool {
	item, size := itemOf(t.Elem(), made), t.Elem().Size()
	return func(at unsafe.Pointer) bool {
		list := (*slice)(at)
		if list.first == nil {
			return true
		}
		for i := 0; i < list.len && !item.always(); i++ {
			if !item.settled(unsafe.Add(list.first, uintptr(i)*size)) { //nolint:gosec // an index
				return false
			}
		}
		return list.len > 0
	}
}

// mapRule: no map is empty, and no value missing.
func mapRule(t reflect.Type, made map[reflect.Type]*sediment) func(unsafe.Pointer) bool {
	value := itemOf(t.Elem(), made)
	return func(at unsafe.Pointer) bool {
		v := reflect.NewAt(t, at).Elem()
		if v.IsNil() {
			return true
		}
		for all := v.MapRange(); !value.always() && all.Next(); {
			if !value.settled(placed(all.Value()).Addr().UnsafePointer()) {
				return false
			}
		}
		return v.Len() > 0
	}
}

// itemOf is of a type in a list or a map, where what may be missing is there.
func itemOf(t reflect.Type, made map[reflect.Type]*sediment) *sediment {
	in := sedimentOf(t, made)
	if t.Kind() != reflect.Pointer && t.Kind() != reflect.Slice && t.Kind() != reflect.Map {
		return in
	}
	return &sediment{rule: func(at unsafe.Pointer) bool { return *(*unsafe.Pointer)(at) != nil && in.settled(at) }}
}
