package resource

import (
	"encoding/binary"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// CBOR is served as upstream does with its gate CBORServingAndStorage on: the
// same requests and answers as in JSON, in the form of RFC 8949; a watch is a
// sequence of them (RFC 8742). What is stored is not touched by it.

// cborSequence is the media type of a watch; cborTag precedes whatever is sent,
// and is how a receiver knows the form of what is embedded.
const (
	cborSequence = "application/cbor-seq"
	cborTag      = "\xd9\xd9\xf7"
	formCBOR     = "cbor"
)

// The first byte of an array and of a map: what it is, and how many are in it; and
// the only one of null.
const (
	cborArray = 0x80
	cborMap   = 0xa0
	cborNull  = 0xf6
)

// cborForms are the serializers of one scheme. A map with a key twice is refused
// whatever the client wants to have checked; unknown fields only by strict.
type cborForms struct{ lax, strict cbor.Serializer }

func newCBOR(s *runtime.Scheme) cborForms {
	return cborForms{lax: cbor.NewSerializer(s, s), strict: cbor.NewSerializer(s, s, cbor.Strict(true))}
}

// Encode writes obj; the order of keys is nobody's to rely on.
func (f cborForms) Encode(obj runtime.Object) ([]byte, error) {
	return encode(runtime.UseNondeterministicEncoding(f.lax), obj)
}

func (f cborForms) decoder(strict bool) runtime.Decoder {
	if strict {
		return f.strict
	}
	return f.lax
}

// cborBare is an item as it stands in a list, shared: without kind and version,
// unless it is of a kind without a Go type, and without cborTag.
func (c *collection) cborBare(it item) ([]byte, error) {
	return it.entry.Encoded(c.formName(formCBOR), func(stored runtime.Object) ([]byte, error) {
		obj, err := c.shown(stored)
		if err != nil {
			return nil, err
		}
		data, err := c.server.codec.cbor.Encode(nameless(obj))
		if err != nil {
			return nil, err
		}
		return data[len(cborTag):], nil
	})
}

// nameless is obj without kind and version, where it has a Go type. It shares all
// else with obj.
func nameless(obj runtime.Object) runtime.Object {
	from := reflect.ValueOf(obj).Elem()
	if from.Kind() != reflect.Struct || !from.FieldByName("TypeMeta").IsValid() {
		return obj
	}
	bare := reflect.New(from.Type())
	bare.Elem().Set(from)
	bare.Elem().FieldByName("TypeMeta").SetZero()
	return bare.Interface().(runtime.Object)
}

// cborWhole is one object for a client.
func (c *collection) cborWhole(it item) ([][]byte, error) {
	bare, err := c.cborBare(it)
	if err != nil {
		return nil, err
	}
	if _, untyped := c.kind.New().(runtime.Unstructured); untyped {
		return [][]byte{[]byte(cborTag), bare}, nil
	}
	size, rest, err := mapSize(bare)
	if err != nil {
		return nil, err
	}
	head := append([]byte(cborTag), cborHead(cborMap, size+2)...)
	head = cborPair(head, "kind", c.kind.GVK.Kind)
	head = cborPair(head, "apiVersion", c.kind.GVK.GroupVersion().String())
	return [][]byte{head, rest}, nil
}

// cborList puts a list together of its items' shared encodings.
func (c *call) cborList(p *page) ([][]byte, error) {
	return cborPieces(c.listGVK(), p, c.cborBare)
}

// cborPieces puts a list of a kind together of what encoded gives for each item.
func cborPieces(of schema.GroupVersionKind, p *page, encoded func(item) ([]byte, error)) ([][]byte, error) {
	meta, err := direct.Marshal(p.meta())
	if err != nil {
		return nil, fmt.Errorf("encode list metadata: %w", err)
	}
	head := append([]byte(cborTag), cborHead(cborMap, 4)...)
	head = cborPair(head, "kind", of.Kind)
	head = cborPair(head, "apiVersion", of.GroupVersion().String())
	head = append(cborText(head, "metadata"), meta...)
	head = append(cborText(head, "items"), cborHead(cborArray, len(p.items))...)
	pieces := make([][]byte, 1, len(p.items)+1)
	pieces[0] = head
	for _, it := range p.items {
		bare, err := encoded(it)
		if err != nil {
			return nil, err
		}
		pieces = append(pieces, bare)
	}
	return pieces, nil
}

// cborFrame wraps an encoded object, its tag included, as a watch event.
func cborFrame(event string, object []byte) ([]byte, error) {
	data, err := direct.Marshal(metav1.WatchEvent{Type: event, Object: runtime.RawExtension{Raw: object}})
	if err != nil {
		return nil, fmt.Errorf("encode watch event: %w", err)
	}
	return append([]byte(cborTag), data...), nil
}

// cborHead is the beginning of an array, a map or a string with n parts, in as few
// bytes as there may be.
func cborHead(major byte, n int) []byte {
	switch {
	case n < 24:
		return []byte{major | byte(n)}
	case n <= 0xff:
		return []byte{major | 24, byte(n)}
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16([]byte{major | 25}, uint16(n))
	}
	return binary.BigEndian.AppendUint32([]byte{major | 26}, uint32(n))
}

// mapSize reads the head of a map that has fewer than 256 pairs, as every Go
// type of the API has.
func mapSize(data []byte) (pairs int, rest []byte, err error) {
	switch {
	case len(data) > 0 && data[0] >= cborMap && data[0] < cborMap+24:
		return int(data[0] - cborMap), data[1:], nil
	case len(data) > 1 && data[0] == cborMap+24:
		return int(data[1]), data[2:], nil
	}
	return 0, nil, fmt.Errorf("an object's encoding is no map")
}

// cborText appends a string as upstream does: as bytes that nobody has checked.
func cborText(to []byte, text string) []byte {
	const byteString = 0x40
	return append(append(to, cborHead(byteString, len(text))...), text...)
}

func cborPair(to []byte, key, value string) []byte {
	return cborText(cborText(to, key), value)
}

// configurationInCBOR reads what a client applies. There is nothing to be strict
// about: a key that comes twice is no CBOR, and no field is unknown to a map.
func configurationInCBOR(data []byte) (*unstructured.Unstructured, error) {
	wanted := &unstructured.Unstructured{Object: map[string]any{}}
	if err := direct.Unmarshal(data, &wanted.Object); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	if wanted.Object == nil {
		wanted.Object = map[string]any{}
	}
	return wanted, nil
}
