package resource

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/typed"
)

// maxLone is how many keys have numbers: an old one and a new one for each list of a
// pod. What is over that has the shape of its own text.
const maxLone = 8

// loneKeys are the JSON names of keys that no two objects share: the address of a pod,
// the UID of an owner.
var loneKeys = []string{"ip", "uid"}

// keyed is a list whose items the field manager knows by one such key and by nothing
// else: there is nothing else in them, or they are one value each.
type keyed struct {
	list, key string // as JSON has them
	index     int    // of the key in an item
}

// keyedList is what there is to know of the list of a JSON name with items of a type
// and these keys; nil when it is another sort of list.
func keyedList(item reflect.Type, list string, keys []string) *keyed {
	if len(keys) != 1 || !slices.Contains(loneKeys, keys[0]) || item.Kind() != reflect.Struct ||
		item.NumField() != 1 && !typed.Atomic(item) {
		return nil
	}
	for i := range item.NumField() {
		f := item.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == keys[0] && f.Type.Kind() == reflect.String {
			return &keyed{list, name, i}
		}
	}
	return nil
}

// of is the key of the only item of a list.
func (k *keyed) of(list reflect.Value) string { return list.Index(0).Field(k.index).String() }

// lone is the key of an item that is the only one of its list.
type lone struct {
	list, key string
	// item is how a record of owners tells it, after its list or what is owned of the
	// list as a whole.
	item string
}

// at is where a record tells of the item; -1 when it does not.
func (l *lone) at(text string) int {
	for from := 0; ; {
		at := strings.Index(text[from:], l.item)
		if at < 0 {
			return -1
		}
		if before := strings.TrimSuffix(text[:from+at], `".":{},`); strings.HasSuffix(before, `"f:`+l.list+`":{`) {
			return from + at
		}
		from += at + len(l.item)
	}
}

// note gives numbers to the keys in v, an object.
func (s *shaper) note(m *mould, v reflect.Value) {
	for _, f := range m.fields {
		switch in := v.Field(f.index); {
		case f.is == reflect.Struct && !f.isLeaf():
			s.note(f.mould, in)
		case f.lone == nil || in.Len() != 1:
		default:
			s.number(f.lone, f.lone.of(in))
		}
	}
}

// number is that of a key in a list; -1 when it has none.
func (s *shaper) number(in *keyed, key string) int {
	for i := range s.lone {
		if l := &s.lone[i]; l.list == in.list && l.key == key {
			return i
		}
	}
	if len(s.lone) == maxLone || key == "" || strings.Trim(key, "0123456789abcdefABCDEF.:-") != "" {
		return -1
	}
	s.lone = append(s.lone, lone{in.list, key, `"k:{\"` + in.key + `\":\"` + key + `\"}":`})
	return len(s.lone) - 1
}

// loneItem writes a list of one item. What else is in the item is not told: where it
// matters, for a change, the list is only written because something has changed.
func (s *shaper) loneItem(f part, v reflect.Value) {
	n := s.number(f.lone, f.lone.of(v))
	if !s.some(n >= 0) {
		s.whole(f.mould, v, true)
		return
	}
	s.field(n)
}

// sign stands for the key with a number in what is remembered of a record: JSON
// has no such byte.
func sign(i int) string { return "\x00" + strconv.Itoa(i) + "\x00" }

// general is a record's text with numbers in place of keys.
func (s *shaper) general(text string) string {
	for i := range s.lone {
		if at := s.lone[i].at(text); at >= 0 {
			text = text[:at] + sign(i) + text[at+len(s.lone[i].item):]
		}
	}
	return text
}

// fieldsOf is the reverse of general, for what is remembered of an entry: the fields
// of an object's own record.
func (s *shaper) fieldsOf(o owner) *metav1.FieldsV1 {
	if len(s.lone) == 0 {
		fields := *o.entry.FieldsV1
		return &fields
	}
	text := o.entry.FieldsV1.GetRawString()
	for i := range s.lone {
		text = strings.Replace(text, sign(i), s.lone[i].item, 1)
	}
	return metav1.NewFieldsV1(text)
}

// mentions says whether a key has stayed in a general text.
func (s *shaper) mentions(text string) bool {
	for i := range s.lone {
		if strings.Contains(text, `\"`+s.lone[i].key+`\"`) {
			return true
		}
	}
	return false
}
