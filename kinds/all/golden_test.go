package all

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	sjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/diff"

	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/kinds"
)

// goldenBytes are the example of a kind in one of the three encodings; nil where
// upstream publishes none.
func goldenBytes(t *testing.T, dir string, kind *kinds.Kind, ext string) []byte {
	t.Helper()
	group := kind.GVK.Group
	if group == "" {
		group = "core"
	}
	data, err := os.ReadFile(filepath.Join(dir, group+"."+kind.GVK.Version+"."+kind.GVK.Kind+"."+ext))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Each published example must come out of our codecs as it went in: the protobuf
// byte by byte, JSON and YAML value by value, and all three as one object.
func TestGoldenEncodings(t *testing.T) {
	s := scheme.Scheme()
	codecs := map[string]runtime.Serializer{
		"json": sjson.NewSerializerWithOptions(sjson.DefaultMetaFactory, s, s, sjson.SerializerOptions{Strict: true}),
		"yaml": sjson.NewSerializerWithOptions(sjson.DefaultMetaFactory, s, s, sjson.SerializerOptions{Yaml: true, Strict: true}),
		"pb":   protobuf.NewSerializer(s, s),
	}
	dir := goldenDir(t)
	for _, kind := range Kinds() {
		t.Run(kind.GVK.String(), func(t *testing.T) {
			var first []byte
			for ext, codec := range codecs {
				data := goldenBytes(t, dir, kind, ext)
				if data == nil {
					continue
				}
				obj := kind.New()
				if _, _, err := codec.Decode(data, &kind.GVK, obj); err != nil {
					t.Fatalf("%s: %v", ext, err)
				}
				obj.GetObjectKind().SetGroupVersionKind(kind.GVK)
				again, err := runtime.Encode(codec, obj)
				if err != nil {
					t.Fatalf("%s: %v", ext, err)
				}
				if !sameEncoding(ext, data, again) {
					t.Errorf("%s came out as\n%s", ext, again)
				}
				plain, err := json.Marshal(obj)
				if err != nil {
					t.Fatal(err)
				}
				if first != nil && !sameEncoding("json", first, plain) {
					t.Errorf("%s tells of another object than the other encodings", ext)
				}
				first = plain
			}
		})
	}
}

func sameEncoding(ext string, want, got []byte) bool {
	if ext != "json" {
		return bytes.Equal(want, got)
	}
	var a, b any
	return json.Unmarshal(want, &a) == nil && json.Unmarshal(got, &b) == nil && equality.Semantic.DeepEqual(a, b)
}

// What defaults leave must be storable: an object that came in and was
// completed comes back from its stored bytes as it was.
func TestDefaultedObjectsSurviveTheStore(t *testing.T) {
	codec := protobuf.NewSerializer(scheme.Scheme(), scheme.Scheme())
	full(t, func(t *testing.T, kind *kinds.Kind, obj kinds.Object) {
		for _, obj := range []kinds.Object{obj, kind.New()} {
			if kind.Strategy.Default != nil {
				kind.Strategy.Default(obj)
			}
			obj.GetObjectKind().SetGroupVersionKind(kind.GVK)
			stored, err := runtime.Encode(codec, obj)
			if err != nil {
				t.Fatal(err)
			}
			back := kind.New()
			if _, _, err := codec.Decode(stored, nil, back); err != nil {
				t.Fatal(err)
			}
			back.GetObjectKind().SetGroupVersionKind(kind.GVK)
			if kind.Strategy.Loaded != nil {
				kind.Strategy.Loaded(back)
			}
			if !equality.Semantic.DeepEqual(obj, back) {
				t.Errorf("the store changed the object:\n%s", diff.Diff(obj, back))
			}
		}
	})
}
