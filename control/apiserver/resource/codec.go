package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"github.com/sampan-dev/sampan/kinds"
)

// protoPrefix precedes every stored or sent protobuf object.
var protoPrefix = []byte("k8s\x00")

// codec turns objects into bytes and back, for the wire and for the store.
type codec struct {
	scheme           *runtime.Scheme
	json, jsonStrict *json.Serializer
	jsonPretty       *json.Serializer
	yaml, yamlStrict *json.Serializer
	proto            *protobuf.Serializer
	cbor             cborForms
}

func newCodec(s *runtime.Scheme) *codec {
	build := func(o json.SerializerOptions) *json.Serializer {
		return json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, o)
	}
	return &codec{
		scheme:     s,
		json:       build(json.SerializerOptions{}),
		jsonStrict: build(json.SerializerOptions{Strict: true}),
		jsonPretty: build(json.SerializerOptions{Pretty: true}),
		yaml:       build(json.SerializerOptions{Yaml: true}),
		yamlStrict: build(json.SerializerOptions{Yaml: true, Strict: true}),
		proto:      protobuf.NewSerializer(s, s),
		cbor:       newCBOR(s),
	}
}

// store gives the bytes that are stored for obj: protobuf in upstream's envelope,
// what the kind says for kinds without a Go type. The object's resourceVersion is
// not stored.
func (c *codec) store(ctx context.Context, obj kinds.Object, k *kinds.Kind) ([]byte, error) {
	revision := obj.GetResourceVersion()
	obj.SetResourceVersion("")
	defer obj.SetResourceVersion(revision)
	if k.Custom != nil {
		return k.Custom.Save(ctx, obj)
	}
	if _, ok := obj.(runtime.Unstructured); ok {
		return encode(c.json, obj)
	}
	return c.encodeProto(obj)
}

// load makes an object of kind k from its stored bytes. Only a custom kind may
// have to wait for others, at the latest until ctx ends.
func (c *codec) load(ctx context.Context, data []byte, k *kinds.Kind) (kinds.Object, error) {
	if k.Custom != nil {
		return loadOne(ctx, data, k) // of whichever version they are
	}
	obj := k.New()
	if err := c.read(data, k, obj); err != nil {
		return nil, fmt.Errorf("decode stored %q: %w", k.GVK.Kind, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GVK)
	if k.Strategy.Loaded != nil {
		k.Strategy.Loaded(obj)
	}
	return obj, nil
}

func (c *codec) read(data []byte, k *kinds.Kind, obj kinds.Object) error {
	if !bytes.HasPrefix(data, protoPrefix) {
		_, _, err := c.json.Decode(data, &k.GVK, obj)
		return err
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(data[len(protoPrefix):]); err != nil {
		return fmt.Errorf("envelope: %w", err)
	}
	message, ok := obj.(interface{ Unmarshal([]byte) error })
	if !ok {
		return fmt.Errorf("%T has no protobuf form", obj)
	}
	return message.Unmarshal(envelope.Raw)
}

// encodeProto is encode for protobuf, without a copy.
func (c *codec) encodeProto(obj runtime.Object) ([]byte, error) {
	var m message
	if err := c.proto.EncodeWithAllocator(obj, &m, &m); err != nil {
		return nil, fmt.Errorf("encode %T: %w", obj, err)
	}
	return m.written, nil
}

// message is what the protobuf serializer writes, in the memory that it was given to
// write it in.
type message struct{ room, written []byte }

// Allocate implements runtime.MemoryAllocator.
func (m *message) Allocate(n uint64) []byte {
	m.room = make([]byte, n)
	return m.room
}

// Write implements io.Writer.
func (m *message) Write(p []byte) (int, error) {
	if m.written == nil && len(p) > 0 && len(m.room) >= len(p) && &p[0] == &m.room[0] {
		m.written = m.room[:len(p):len(p)]
		return len(p), nil
	}
	m.written = append(m.written, p...)
	return len(p), nil
}

func encode(e runtime.Encoder, obj runtime.Object) ([]byte, error) {
	var b bytes.Buffer
	if err := e.Encode(obj, &b); err != nil {
		return nil, fmt.Errorf("encode %T: %w", obj, err)
	}
	return b.Bytes(), nil
}

// decode reads a request's body into into. Strict mistakes (unknown or duplicate
// fields) are returned apart from err: the caller refuses, warns or ignores.
func (c *codec) decode(data []byte, m mediaType, want schema.GroupVersionKind, into runtime.Object, strict bool) (runtime.Object, *schema.GroupVersionKind, []error, error) {
	var d runtime.Decoder
	switch {
	case m == mediaProtobuf:
		d = c.proto
	case m == mediaCBOR:
		d = c.cbor.decoder(strict)
	case m == mediaYAML && strict:
		d = c.yamlStrict
	case m == mediaYAML:
		d = c.yaml
	case strict:
		d = c.jsonStrict
	default:
		d = c.json
	}
	obj, got, err := d.Decode(data, &want, into)
	if wrong, ok := runtime.AsStrictDecodingError(err); ok && obj != nil {
		return obj, got, wrong.Errors(), nil
	}
	return obj, got, nil, err
}

// coerce takes from a decoded object what a custom kind has no place for; each
// unknown field is one more strict mistake.
func coerce(k *kinds.Kind, obj runtime.Object, strict []error) ([]error, error) {
	own, ok := obj.(*unstructured.Unstructured)
	if k.Custom == nil || !ok {
		return strict, nil
	}
	unknown, err := k.Custom.Coerce(own)
	for _, path := range unknown {
		strict = append(strict, fmt.Errorf("unknown field %q", path))
	}
	return strict, err
}

// toMap gives an object's JSON form as maps, for patches.
func toMap(obj runtime.Object) (map[string]any, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return u.DeepCopy().Object, nil
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
}

var errNotObject = errors.New("body is not an object of the API")
