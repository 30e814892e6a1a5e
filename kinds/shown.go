package kinds

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/diff"
)

// Shown is a value as messages show it. Upstream's rules by hand look at types of
// their own, without names for JSON: a message has every field, set or not, under its
// name in Go, and the metadata's beside those of the object they belong to. Types of
// apimachinery are the same there, and shown as they always are.
type Shown struct{ Value any }

// MarshalJSON makes the text of the message.
func (s Shown) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	err := show(&b, reflect.ValueOf(s.Value))
	return b.Bytes(), err
}

// Diff is how two states of something differ, line by line, each Shown.
func Diff(was, now any) string { return diff.Diff(Shown{was}, Shown{now}) }

// shown is the value of a fault: what has parts is Shown.
func shown(value any) any {
	switch t := reflect.TypeOf(value); {
	case t == nil, plain(t):
		return value
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Pointer, t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
		return Shown{value}
	}
	return value
}

var marshaler = reflect.TypeFor[json.Marshaler]()

// plain says that a type has its JSON in upstream's messages, too.
func plain(t reflect.Type) bool {
	return t.Implements(marshaler) || strings.HasPrefix(t.PkgPath(), "k8s.io/apimachinery/")
}

func show(b *bytes.Buffer, v reflect.Value) error {
	switch {
	case !v.IsValid():
		b.WriteString("null")
		return nil
	case plain(v.Type()):
	case v.Kind() == reflect.Pointer && !v.IsNil(), v.Kind() == reflect.Interface && !v.IsNil():
		return show(b, v.Elem())
	case v.Kind() == reflect.Struct:
		b.WriteByte('{')
		if err := showFields(b, v); err != nil {
			return err
		}
		b.WriteByte('}')
		return nil
	case v.Kind() == reflect.Slice && !v.IsNil() && v.Type().Elem().Kind() != reflect.Uint8:
		return showItems(b, v)
	case v.Kind() == reflect.Map && !v.IsNil():
		return showEntries(b, v)
	}
	text, err := json.Marshal(v.Interface())
	b.Write(text)
	return err
}

// showFields shows a struct's fields without the braces; what is embedded lies flat
// among them, but for the kind's name, which upstream's types have lost by then.
func showFields(b *bytes.Buffer, v reflect.Value) error {
	for i := range v.NumField() {
		f, part := v.Type().Field(i), v.Field(i)
		if f.Anonymous && f.Name == "TypeMeta" {
			continue
		}
		var text bytes.Buffer
		if f.Anonymous {
			if err := show(&text, part); err != nil {
				return err
			}
			if flat := bytes.TrimSuffix(bytes.TrimPrefix(text.Bytes(), []byte("{")), []byte("}")); len(flat) > 0 {
				separate(b)
				b.Write(flat)
			}
			continue
		}
		separate(b)
		name, err := json.Marshal(f.Name)
		if err != nil {
			return err
		}
		b.Write(append(name, ':'))
		if err := show(b, part); err != nil {
			return err
		}
	}
	return nil
}

func showItems(b *bytes.Buffer, v reflect.Value) error {
	b.WriteByte('[')
	for i := range v.Len() {
		separate(b)
		if err := show(b, v.Index(i)); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

func showEntries(b *bytes.Buffer, v reflect.Value) error {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
	b.WriteByte('{')
	for _, key := range keys {
		separate(b)
		name, err := json.Marshal(key.Interface())
		if err != nil {
			return err
		}
		b.Write(append(name, ':'))
		if err := show(b, v.MapIndex(key)); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

// separate writes a comma, unless what comes is the first of something.
func separate(b *bytes.Buffer) {
	if n := b.Len(); n > 0 && b.Bytes()[n-1] != '{' && b.Bytes()[n-1] != '[' {
		b.WriteByte(',')
	}
}
