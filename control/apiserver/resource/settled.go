package resource

import (
	"reflect"
	"slices"
	"sync"
	"time"

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
// the kind's.
func (st *storage) expect(key string, value []byte, obj kinds.Object) (*cache.Cache, *cache.Expected) {
	if st.kind.Custom != nil || st.kind.Strategy.Loaded != nil {
		return nil, nil
	}
	c := st.running()
	if c == nil {
		return nil, nil
	}
	given, ok := settledCopy(obj)
	if !ok {
		return nil, nil
	}
	given.GetObjectKind().SetGroupVersionKind(st.kind.GVK)
	return c, c.Expect(key, value, given)
}

// settledCopy is a copy of obj's outermost struct, with the times that the server gives
// each object as they will be stored; false when that does not make it settled.
func settledCopy(obj kinds.Object) (kinds.Object, bool) {
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
	given.SetCreationTimestamp(settledTime(given.GetCreationTimestamp()))
	if owners := given.GetManagedFields(); len(owners) > 0 {
		owners = slices.Clone(owners)
		times := make([]metav1.Time, len(owners))
		for i := range owners {
			if owners[i].Time != nil {
				times[i] = settledTime(*owners[i].Time)
				owners[i].Time = &times[i]
			}
		}
		given.SetManagedFields(owners)
	}
	return given, topOf(from.Type().Elem()).settled(to.Elem())
}

// settledTime is t as decoding its stored form gives it.
func settledTime(t metav1.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.Unix(t.Unix(), 0)
}

// sediment is what there is to look at in the values of a type; without a rule, nothing.
type sediment struct {
	rule func(reflect.Value) bool
	// open types are being looked into: they may have a rule later.
	open bool
}

func (s *sediment) settled(v reflect.Value) bool { return s.rule == nil || s.rule(v) }

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
var exact = map[reflect.Type]func(reflect.Value) bool{
	reflect.TypeFor[metav1.Time](): func(v reflect.Value) bool {
		t := placed(v).Addr().Interface().(*metav1.Time)
		return *t == settledTime(*t)
	},
	reflect.TypeFor[metav1.MicroTime](): func(v reflect.Value) bool {
		t := placed(v).Addr().Interface().(*metav1.MicroTime).Time
		return t == time.Time{} || t == time.UnixMicro(t.UnixMicro())
	},
	reflect.TypeFor[resource.Quantity](): func(v reflect.Value) bool {
		return settledQuantity(*placed(v).Addr().Interface().(*resource.Quantity)) // a copy: String remembers what it says
	},
	typeMeta: reflect.Value.IsZero,
}

func settledQuantity(q resource.Quantity) bool {
	was := q
	decoded, err := resource.ParseQuantity(q.String())
	return err == nil && decoded == was
}

// ruleOf is nil when all values of a type are settled.
func ruleOf(t reflect.Type, made map[reflect.Type]*sediment) func(reflect.Value) bool {
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
		return func(v reflect.Value) bool { return v.IsNil() || elem.settled(v.Elem()) }
	case reflect.Slice:
		return listRule(t, made)
	case reflect.Map:
		return mapRule(t, made)
	}
	return reflect.Value.IsZero // an interface: a field that is not encoded
}

// fieldsRule looks at the fields that are wanted. Those that protobuf does not have must
// be zero.
func fieldsRule(t reflect.Type, wanted func(reflect.StructField) bool, made map[reflect.Type]*sediment) func(reflect.Value) bool {
	type field struct {
		index int
		*sediment
	}
	var looked []field
	for i := range t.NumField() {
		f := t.Field(i)
		if !wanted(f) {
			continue
		}
		if tag := f.Tag.Get("protobuf"); (tag == "" || tag == "-") && f.Type != typeMeta {
			looked = append(looked, field{i, &sediment{rule: reflect.Value.IsZero}})
			continue
		}
		if in := sedimentOf(f.Type, made); !in.always() {
			looked = append(looked, field{i, in})
		}
	}
	if len(looked) == 0 {
		return nil
	}
	return func(v reflect.Value) bool {
		for _, f := range looked {
			if !f.settled(v.Field(f.index)) {
				return false
			}
		}
		return true
	}
}

// listRule: no list is empty, and no item missing.
func listRule(t reflect.Type, made map[reflect.Type]*sediment) func(reflect.Value) bool {
	item := itemOf(t.Elem(), made)
	return func(v reflect.Value) bool {
		if v.IsNil() {
			return true
		}
		n := v.Len()
		for i := 0; i < n && !item.always(); i++ {
			if !item.settled(v.Index(i)) {
				return false
			}
		}
		return n > 0
	}
}

// mapRule: no map is empty, and no value missing.
func mapRule(t reflect.Type, made map[reflect.Type]*sediment) func(reflect.Value) bool {
	value := itemOf(t.Elem(), made)
	return func(v reflect.Value) bool {
		if v.IsNil() {
			return true
		}
		if value.always() {
			return v.Len() > 0
		}
		for all := v.MapRange(); all.Next(); {
			if !value.settled(all.Value()) {
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
	return &sediment{rule: func(v reflect.Value) bool { return !v.IsNil() && in.settled(v) }}
}
