package resource

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/kinds"
)

// The encodings of an entry that the cache shares. A view's have the view's kind
// in front, since the entry is the stored kind's.
const (
	formJSON  = "json"
	formProto = "protobuf"
)

func (c *collection) formName(name string) string {
	if c.kind.View == nil {
		return name
	}
	return c.kind.GVK.String() + " " + name
}

// shown is an entry's stored object as the collection shows it.
func (c *collection) shown(stored runtime.Object) (kinds.Object, error) {
	obj, ok := stored.(kinds.Object)
	if !ok {
		return nil, fmt.Errorf("stored object is a %T", stored)
	}
	return c.show(obj), nil
}

// jsonBytes is an item's JSON, shared.
func (c *collection) jsonBytes(it item) ([]byte, error) {
	return it.entry.Encoded(c.formName(formJSON), func(stored runtime.Object) ([]byte, error) {
		obj, err := c.shown(stored)
		if err != nil {
			return nil, err
		}
		return encode(c.server.codec.json, obj)
	})
}

// protoBytes is an item's protobuf message without envelope, shared.
func (c *collection) protoBytes(it item) ([]byte, error) {
	return it.entry.Encoded(c.formName(formProto), func(stored runtime.Object) ([]byte, error) {
		obj, err := c.shown(stored)
		if err != nil {
			return nil, err
		}
		m, ok := obj.(interface{ Marshal() ([]byte, error) })
		if !ok {
			return nil, fmt.Errorf("%T has no protobuf form", obj)
		}
		data, err := m.Marshal()
		if data == nil {
			data = []byte{}
		}
		return data, err
	})
}

// itemBytes is one whole object in JSON, protobuf or CBOR.
func (c *collection) itemBytes(it item, m mediaType, newline bool) ([][]byte, error) {
	if m == mediaProtobuf {
		raw, err := c.protoBytes(it)
		if err != nil {
			return nil, err
		}
		return [][]byte{envelope(c.kind.GVK, len(raw)), raw}, nil
	}
	if m == mediaCBOR {
		return c.cborWhole(it)
	}
	data, err := c.jsonBytes(it)
	if !newline {
		data = bytes.TrimSuffix(data, []byte("\n"))
	}
	return [][]byte{data}, err
}

// envelope is what precedes size bytes of a protobuf message: the prefix, the
// kind and the length (runtime.Unknown's fields 1 and 2).
func envelope(of schema.GroupVersionKind, size int) []byte {
	meta := appendField(nil, 1, []byte(of.GroupVersion().String()))
	meta = appendField(meta, 2, []byte(of.Kind))
	head := appendField(bytes.Clone(protoPrefix), 1, meta)
	head = append(head, 2<<3|2)
	return binary.AppendUvarint(head, uint64(size))
}

// appendField appends a length-delimited protobuf field.
func appendField(to []byte, number byte, data []byte) []byte {
	to = append(to, number<<3|2)
	to = binary.AppendUvarint(to, uint64(len(data)))
	return append(to, data...)
}

// comma and brace stand between the pieces of a list.
var comma, brace = []byte{','}, []byte{'{'}

// jsonHead is all of a JSON list before its items.
func jsonHead(of schema.GroupVersionKind, listMeta any) ([]byte, error) {
	meta, err := json.Marshal(listMeta)
	if err != nil {
		return nil, fmt.Errorf("encode list metadata: %w", err)
	}
	return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":%s,"items":[`, of.Kind, of.GroupVersion(), meta), nil
}

// jsonList puts a JSON list together of its items' shared encodings. Items do
// not repeat kind and version, as upstream.
func (c *call) jsonList(p *page) ([][]byte, error) {
	var listMeta any = p.meta()
	if c.kind.Custom != nil { // upstream's have no Go type that leaves out what is empty
		listMeta = struct {
			Continue  string `json:"continue"`
			Remaining *int64 `json:"remainingItemCount,omitempty"`
			Version   string `json:"resourceVersion"`
		}{p.cont, p.remaining, p.meta().ResourceVersion}
	}
	head, err := jsonHead(c.listGVK(), listMeta)
	if err != nil {
		return nil, err
	}
	typed := fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,`, c.kind.GVK.Kind, c.kind.GVK.GroupVersion())
	pieces := make([][]byte, 0, 3*len(p.items)+2)
	pieces = append(pieces, head)
	for i, it := range p.items {
		data, err := c.jsonBytes(it)
		if err != nil {
			return nil, err
		}
		data = bytes.TrimSuffix(data, []byte("\n"))
		if i > 0 {
			pieces = append(pieces, comma)
		}
		if rest, ok := bytes.CutPrefix(data, typed); ok {
			pieces = append(pieces, brace)
			data = rest
		}
		pieces = append(pieces, data)
	}
	return append(pieces, []byte("]}\n")), nil
}

// protobufList puts a protobuf list together: every list type of the API has its
// metadata as field 1 and its items as field 2.
func (c *call) protobufList(p *page) ([][]byte, error) {
	return protoPieces(c.listGVK(), p, c.protoBytes)
}

// protoPieces puts a protobuf list of a kind together of what encoded gives for each
// item. Only meta.k8s.io/v1beta1 has metadata and items the other way round.
func protoPieces(of schema.GroupVersionKind, p *page, encoded func(item) ([]byte, error)) ([][]byte, error) {
	metaField, itemField := byte(1), byte(2)
	if of.GroupVersion() == metaVersion("v1beta1") {
		metaField, itemField = 2, 1
	}
	lm := p.meta()
	meta, err := lm.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode list metadata: %w", err)
	}
	pieces := make([][]byte, 2, 2*len(p.items)+2)
	pieces[1] = appendField(nil, metaField, meta)
	size := len(pieces[1])
	heads := make([]byte, 0, maxHead*len(p.items)) // one allocation for all
	for _, it := range p.items {
		raw, err := encoded(it)
		if err != nil {
			return nil, err
		}
		begin := len(heads)
		heads = binary.AppendUvarint(append(heads, itemField<<3|2), uint64(len(raw)))
		pieces = append(pieces, heads[begin:], raw)
		size += len(heads) - begin + len(raw)
	}
	pieces[0] = envelope(of, size)
	return pieces, nil
}

// maxHead is the most bytes that precede a protobuf list's item shorter than 256 MiB.
const maxHead = 5

// stripItems takes kind and version from a list's items, which are the list's
// own copies.
func stripItems(list runtime.Object) {
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	if !items.IsValid() || items.Kind() != reflect.Slice {
		return
	}
	for i := range items.Len() {
		if it := items.Index(i); it.Kind() == reflect.Struct {
			if meta := it.FieldByName("TypeMeta"); meta.IsValid() && meta.CanSet() {
				meta.SetZero()
			}
		}
	}
}

// frame is one watch event about an entry, as it goes over the wire: shared by
// all watchers that see the same.
func (c *collection) frame(e cache.Event, m mediaType) ([]byte, error) {
	name := c.formName(fmt.Sprintf("watch/%s/%d", e.Type, m))
	return e.Entry.Encoded(name, func(stored runtime.Object) ([]byte, error) {
		obj, err := c.shown(stored)
		if err != nil {
			return nil, err
		}
		data, err := c.server.codec.encodeAs(m, false, obj)
		if err != nil {
			return nil, err
		}
		return frameOf(e.Type.String(), data, m)
	})
}

// frameHead is how many bytes tell the length of a protobuf frame.
const frameHead = 4

// frameOf wraps an encoded object as a watch event: a line of JSON, protobuf with
// its length in front, or CBOR.
func frameOf(event string, object []byte, m mediaType) ([]byte, error) {
	if m == mediaCBOR {
		return cborFrame(event, object)
	}
	if m != mediaProtobuf {
		object = bytes.TrimSuffix(object, []byte("\n"))
		line := make([]byte, 0, len(object)+len(event)+24)
		line = append(line, `{"type":"`...)
		line = append(line, event...)
		line = append(line, `","object":`...)
		line = append(line, object...)
		return append(line, "}\n"...), nil
	}
	message := metav1.WatchEvent{Type: event, Object: runtime.RawExtension{Raw: object}}
	data, err := message.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode watch event: %w", err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...), nil
}
