package resource

import (
	"reflect"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// addressKey is the JSON name of the key that an item of a list of addresses is.
const addressKey = "ip"

// maxLone is how many addresses have numbers: an old one and a new one for each list
// of a pod. What is over that has the shape of its own text.
const maxLone = 8

// lone is an address that is the only item of its list.
type lone struct {
	field, address string
	// text is how a record of owners tells it, from the name of its list.
	text string
}

// note gives numbers to the addresses in v, an object.
func (s *shaper) note(m *mould, v reflect.Value) {
	for _, f := range m.fields {
		switch in := v.Field(f.index); {
		case f.is == reflect.Struct && !f.isLeaf():
			s.note(f.mould, in)
		case f.address == "" || in.Len() != 1:
		default:
			s.number(f.address, in.Index(0).Field(f.elem.fields[0].index).String())
		}
	}
}

// number is that of an address in a list; -1 when it has none.
func (s *shaper) number(field, address string) int {
	for i := range s.lone {
		if l := &s.lone[i]; l.field == field && l.address == address {
			return i
		}
	}
	if len(s.lone) == maxLone || address == "" || strings.Trim(address, "0123456789abcdefABCDEF.:") != "" {
		return -1
	}
	s.lone = append(s.lone, lone{field: field, address: address,
		text: `"f:` + field + `":{".":{},"k:{\"` + addressKey + `\":\"` + address + `\"}":`})
	return len(s.lone) - 1
}

// loneItem writes a list of one address.
func (s *shaper) loneItem(f part, v reflect.Value) {
	n := s.number(f.address, v.Index(0).Field(f.elem.fields[0].index).String())
	if !s.some(n >= 0) {
		s.whole(f.mould, v, true)
		return
	}
	s.field(n)
}

// sign stands for the address with a number in what is remembered of a record: JSON
// has no such byte.
func sign(i int) string { return "\x00" + strconv.Itoa(i) + "\x00" }

// general is a record's text with numbers in place of addresses.
func (s *shaper) general(text string) string {
	for i := range s.lone {
		text = strings.Replace(text, s.lone[i].text, sign(i), 1)
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
		text = strings.Replace(text, sign(i), s.lone[i].text, 1)
	}
	return metav1.NewFieldsV1(text)
}

// mentions says whether an address has stayed in a general text.
func (s *shaper) mentions(text string) bool {
	for i := range s.lone {
		if strings.Contains(text, `\"`+s.lone[i].address+`\"`) {
			return true
		}
	}
	return false
}
