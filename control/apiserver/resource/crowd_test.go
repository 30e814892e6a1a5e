package resource

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/internal/frugal"
	"github.com/sampan-dev/sampan/internal/scheme"
)

// An object has as many parts in one form as in another, give or take what the
// forms themselves are made of.
func TestCrowd(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{}}}
	for range 12_000 {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: `a"{[,:`})
	}
	c := newCodec(scheme.Scheme())
	for m, want := range map[mediaType]crowd{mediaJSON: {36_000, 12_000, 5}, mediaYAML: {36_000, 12_000, 5}, mediaCBOR: {36_000, 12_000, 5}, mediaProtobuf: {24_000, 12_000, 3}} {
		pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
		data, err := c.encodeAs(m, false, pod)
		if err != nil {
			t.Fatal(err)
		}
		got := crowdOf(data, m, reflect.TypeOf(pod))
		if got.values < want.values || got.values > 4*want.values || got.width != want.width || got.depth != want.depth {
			t.Errorf("%v: %+v, want %+v", m, got, want)
		}
	}
}

// Protobuf may be nested as deep as JSON, and no deeper: each level is a frame on
// the stack of whoever looks at it.
func TestProtobufDepth(t *testing.T) {
	inner := []byte{}
	for len(inner) < 64<<10 {
		inner = appendField(nil, 2, inner) // a list of one schema within another
	}
	var c crowd
	c.protobuf(inner, reflect.TypeFor[nested](), 0)
	if c.depth <= maxDepth {
		t.Errorf("%+v", c)
	}
}

type nested struct {
	Items []nested `protobuf:"bytes,2,rep,name=items"`
}

// What protobuf carries and JSON cannot is refused.
func TestSound(t *testing.T) {
	for text, ok := range map[string]bool{`{"a":1}`: true, ``: true, `garbage`: false, `{"a":`: false, strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000): false} {
		r := &apiextensionsv1.CustomResourceDefinition{}
		r.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{Schema: &apiextensionsv1.CustomResourceValidation{
			OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Default: &apiextensionsv1.JSON{Raw: []byte(text)}}}}}
		if err := sound(r, mediaProtobuf); (err == nil) != ok {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if holdsRaw(reflect.TypeFor[*corev1.Pod]()) {
		t.Error("a pod holds JSON that nobody has read")
	}
}

// FuzzCrowd: a body never has more in it than was counted.
func FuzzCrowd(f *testing.F) {
	for _, text := range []string{`{"a":[{},{"b":"\"{"}],"c":{"d":null}}`, `[[[1,2],[]],{}]`, `"a"`, `{"a":`} {
		f.Add([]byte(text), uint8(mediaJSON))
		var v any
		if json.Unmarshal([]byte(text), &v) == nil {
			data, err := direct.Marshal(v)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, uint8(mediaCBOR))
		}
	}
	f.Add([]byte("\x9f\xbfAa\x01\xff\xd9\xd9\xf7\x82\x01\x02\xff"), uint8(mediaCBOR))
	f.Add([]byte("a: &a [1, {}]\nb: [*a, *a]\n"), uint8(mediaYAML))
	f.Add([]byte("k8s\x00\x0a\x06\x0a\x02v1\x12\x03Pod\x12\x08\x12\x06\x12\x01\x0a\x12\x01\x0a"), uint8(mediaProtobuf))
	c := newCodec(scheme.Scheme())
	f.Fuzz(func(t *testing.T, data []byte, media uint8) {
		m := mediaType(media) % (mediaCBOR + 1)
		filled := data
		if m != mediaProtobuf && m != mediaCBOR {
			filled = append(bytes.Repeat([]byte(" "), crowdFrom), data...)
		}
		var got, want crowd
		frugal.Run(t, len(data), func() { got = crowdOf(filled, m, reflect.TypeFor[*corev1.Pod]()) })
		var v any
		switch m {
		case mediaProtobuf:
			got.protobuf(rawOf(data), reflect.TypeFor[*corev1.Pod](), 0)
			pod := &corev1.Pod{}
			if _, _, _, err := c.decode(data, m, schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, pod, false); err == nil && len(pod.Spec.Containers) > got.values {
				t.Errorf("%d containers in %+v", len(pod.Spec.Containers), got)
			}
			return
		case mediaCBOR:
			got.cbor(data)
			if direct.Unmarshal(data, &v) != nil {
				return
			}
		case mediaYAML:
			if !manyIn(filled) || yaml.Unmarshal(data, &v) != nil {
				return
			}
		default:
			if json.Unmarshal(data, &v) != nil {
				return
			}
		}
		want.walk(v, 0)
		if got.values < want.values || got.width < want.width || got.depth < want.depth {
			t.Errorf("counted %+v, there are %+v", got, want)
		}
	})
}

// walk counts what was decoded.
func (c *crowd) walk(v any, depth int) {
	c.depth = max(c.depth, depth)
	switch v := v.(type) {
	case map[string]any:
		c.depth = max(c.depth, depth+1)
		c.saw(len(v))
		for _, inner := range v {
			c.values++
			c.walk(inner, depth+1)
		}
	case []any:
		c.depth = max(c.depth, depth+1)
		for _, inner := range v {
			c.values++
			c.walk(inner, depth+1)
		}
	}
}
