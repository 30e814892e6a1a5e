package audit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"mime"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/internal/scheme"
)

// MaxBody bounds the bytes of a body that are kept for an event; a longer one is
// left out, and an annotation says so.
const MaxBody = 3 << 20

// kept is the beginning of a body that somebody else reads or writes.
type kept struct {
	bytes.Buffer
	over bool
}

func (k *kept) take(p []byte) {
	if k.over || k.Len()+len(p) > MaxBody {
		k.over = true
		k.Reset()
		return
	}
	k.Write(p)
}

// reading keeps what a handler reads of a request's body.
type reading struct {
	io.ReadCloser
	kept *kept
}

func (r *reading) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.kept.take(p[:n])
	return n, err
}

// object turns a body into JSON; nil when it cannot be read. Secrets of formats do
// not matter: it is what the client sent, or got.
func (k *kept) object(h http.Header, omitManaged bool) json.RawMessage {
	raw := k.Bytes()
	if k.over || len(raw) == 0 {
		return nil
	}
	if h.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil
		}
		if raw, err = io.ReadAll(io.LimitReader(z, MaxBody)); err != nil {
			return nil
		}
	}
	obj := jsonOf(h.Get("Content-Type"), raw)
	if obj == nil || !json.Valid(obj) {
		return nil
	}
	if omitManaged {
		return withoutManaged(obj)
	}
	return bytes.Clone(obj)
}

func jsonOf(contentType string, raw []byte) []byte {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind = "application/json"
	}
	switch kind {
	case "application/vnd.kubernetes.protobuf":
		s := scheme.Scheme()
		obj, gvk, err := protobuf.NewSerializer(s, s).Decode(raw, nil, nil)
		if err != nil {
			return nil
		}
		obj.GetObjectKind().SetGroupVersionKind(*gvk)
		out, err := json.Marshal(obj)
		if err != nil {
			return nil
		}
		return out
	case "application/cbor", "application/apply-patch+cbor":
		var v any
		if direct.Unmarshal(raw, &v) != nil {
			return nil
		}
		out, err := json.Marshal(v)
		if err != nil {
			return nil
		}
		return out
	case "application/yaml", "application/apply-patch+yaml":
		out, err := yaml.YAMLToJSON(raw)
		if err != nil {
			return nil
		}
		return out
	}
	return raw
}

// withoutManaged drops metadata.managedFields of an object, or of a list's items.
func withoutManaged(raw []byte) json.RawMessage {
	var obj map[string]any
	if json.Unmarshal(raw, &obj) != nil {
		return bytes.Clone(raw)
	}
	drop := func(o any) {
		if m, ok := o.(map[string]any); ok {
			if meta, ok := m["metadata"].(map[string]any); ok {
				delete(meta, "managedFields")
			}
		}
	}
	drop(obj)
	if items, ok := obj["items"].([]any); ok {
		for _, item := range items {
			drop(item)
		}
	}
	out, err := json.Marshal(obj)
	if err != nil {
		return bytes.Clone(raw)
	}
	return out
}
