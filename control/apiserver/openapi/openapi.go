// Package openapi publishes the schemas of what is served, as OpenAPI v2 and v3:
// what kubectl explain, apply, diff and validation read. The schemas of built-in
// kinds were generated from k8s.io/api by test/openapi and are embedded compressed;
// those of custom kinds are asked for; paths come from the kind table. Everything
// is built when first asked for and kept compressed. When custom kinds come and
// go, only what is theirs is built anew: the large part is kept as it was encoded.
package openapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sampan-dev/sampan/kinds"
)

// The forms of a document.
const (
	jsonType    = "application/json"
	protoV2Type = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	protoV3Type = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// Handler serves /openapi/v2 and /openapi/v3. Safe for concurrent use.
type Handler struct {
	table  func() []*kinds.Kind
	custom Models

	mu   sync.Mutex // guards what follows; building happens under it, once
	of   []*kinds.Kind
	docs map[string]*document // by "v2", "v3", "v3/<group version path>", with "+pb" for protobuf
	defs *definitions
	// fixed is the v2 document of the built-in kinds alone, groups the v3
	// documents, each with the kinds that it is of.
	fixed  *fixedV2
	groups map[string]*groupDoc
}

// Models gives the schemas of a custom kind and of its list, by name, in the form
// of OpenAPI v2 or v3; ok is false for a kind that it does not know.
type Models func(k *kinds.Kind, v2 bool) (models map[string]json.RawMessage, ok bool, err error)

// document is one encoded answer, compressed with gzip.
type document struct {
	packed []byte
	etag   string
	made   time.Time
}

// New returns a Handler over the kinds that table gives; custom may be nil when
// none of them is custom.
func New(table func() []*kinds.Kind, custom Models) *Handler {
	if custom == nil {
		custom = func(*kinds.Kind, bool) (map[string]json.RawMessage, bool, error) { return nil, false, nil }
	}
	return &Handler{table: table, custom: custom, docs: map[string]*document{}, groups: map[string]*groupDoc{}}
}

// Metadata gives the OpenAPI v3 schemas of ObjectMeta and of what it refers to, by
// name. The caller must not change them.
func (h *Handler) Metadata() (map[string]*spec.Schema, error) { return h.schemas(objectMetaModel) }

// Types gives the typed schema of a built-in kind, for server-side apply; nil when
// there is none. It is made anew with each call.
func (h *Handler) Types(gvk schema.GroupVersionKind) (managedfields.TypeConverter, error) {
	h.mu.Lock()
	err := h.load()
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	model, ok := h.defs.model[gvk]
	if !ok {
		return nil, nil
	}
	known, err := h.schemas(model)
	if err != nil {
		return nil, err
	}
	return managedfields.NewTypeConverter(known, false)
}

// schemas are those that a root needs, in the form of OpenAPI v3.
func (h *Handler) schemas(root string) (map[string]*spec.Schema, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.load(); err != nil {
		return nil, err
	}
	out := map[string]*spec.Schema{}
	for _, name := range h.defs.reachable([]string{root}) {
		tree, err := h.defs.v3(name)
		if err != nil {
			return nil, err
		}
		raw, err := json.Marshal(tree)
		if err != nil {
			return nil, fmt.Errorf("encode the schema %q: %w", name, err)
		}
		out[name] = &spec.Schema{}
		if err := json.Unmarshal(raw, out[name]); err != nil {
			return nil, fmt.Errorf("decode the schema %q: %w", name, err)
		}
	}
	return out, nil
}

// ServeHTTP answers with JSON, or with protobuf when the client asks for it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/openapi/")
	contentType := jsonType
	if accept := r.Header.Get("Accept"); strings.Contains(accept, "+protobuf") && name != "v3" {
		contentType = protoV3Type
		if name == "v2" {
			contentType = protoV2Type
		}
	}
	doc, err := h.document(name, contentType != jsonType)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if doc == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Vary", "Accept, Accept-Encoding")
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Etag", doc.etag)
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		r = r.Clone(r.Context())
		r.Header.Del("Range") // a part of what is compressed is of no use to anybody
		http.ServeContent(w, r, "", doc.made, bytes.NewReader(doc.packed))
		return
	}
	raw, err := unpack(doc.packed)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	http.ServeContent(w, r, "", doc.made, bytes.NewReader(raw))
}

// document finds or builds one; nil when there is none of that name.
func (h *Handler) document(name string, protobuf bool) (*document, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.table(); !slices.Equal(now, h.of) {
		h.of, h.docs = now, map[string]*document{}
	}
	full := name
	if protobuf {
		full += "+pb"
	}
	if doc, ok := h.docs[full]; ok {
		return doc, nil
	}
	raw, err := h.build(name, protobuf)
	if err != nil || raw == nil {
		return nil, err
	}
	packed, err := pack(raw)
	if err != nil {
		return nil, err
	}
	doc := &document{packed: packed, etag: fmt.Sprintf("%q", digest(raw)), made: time.Now()}
	h.docs[full] = doc
	return doc, nil
}

func digest(raw []byte) string { return fmt.Sprintf("%X", sha256.Sum256(raw)) }

// load reads the embedded schemas, once. The caller holds mu.
func (h *Handler) load() error {
	if h.defs != nil {
		return nil
	}
	defs, err := loadDefinitions()
	h.defs = defs
	return err
}

// build encodes one document as JSON or protobuf. The caller holds mu.
func (h *Handler) build(name string, protobuf bool) ([]byte, error) {
	if err := h.load(); err != nil {
		return nil, err
	}
	switch name {
	case "v2":
		return h.v2(protobuf)
	case "v3":
		return h.v3Index()
	}
	path, ok := strings.CutPrefix(name, "v3/")
	if !ok {
		return nil, nil
	}
	raw, err := h.v3Group(path)
	if err != nil || raw == nil || !protobuf {
		return raw, err
	}
	return toProtobuf(raw)
}

var info = map[string]string{"title": "Kubernetes", "version": "v1.37.1"}

// groups are the paths under which v3 has a document each.
func (h *Handler) byGroup() map[string][]*kinds.Kind {
	out := map[string][]*kinds.Kind{}
	for _, k := range h.of {
		path := groupPath(k)
		out[path] = append(out[path], k)
	}
	return out
}

func groupPath(k *kinds.Kind) string {
	if k.GVK.Group == "" {
		return "api/" + k.GVK.Version
	}
	return "apis/" + k.GVK.Group + "/" + k.GVK.Version
}

// v3Index names each group's document together with its hash, so that clients
// may keep it until it changes.
func (h *Handler) v3Index() ([]byte, error) {
	paths := map[string]any{}
	documents := slices.Collect(maps.Keys(h.byGroup()))
	for path := range roots(h.of) {
		if !slices.Contains(documents, path) {
			documents = append(documents, path)
		}
	}
	for _, path := range documents {
		raw, err := h.v3Group(path)
		if err != nil {
			return nil, err
		}
		paths[path] = map[string]string{"serverRelativeURL": "/openapi/v3/" + path + "?hash=" + digest(raw)}
	}
	return json.Marshal(map[string]any{"paths": paths})
}

func pack(raw []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(raw); err != nil {
		return nil, fmt.Errorf("compress openapi: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress openapi: %w", err)
	}
	return out.Bytes(), nil
}
