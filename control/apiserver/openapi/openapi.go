// Package openapi publishes the schemas of what is served, as OpenAPI v2 and v3:
// what kubectl explain, apply, diff and validation read. The schemas were
// generated from k8s.io/api by test/openapi and are embedded compressed; paths
// come from the kind table. Everything is built when first asked for and kept
// compressed.
package openapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"github.com/klauspost/compress/gzip"
	"google.golang.org/protobuf/proto"

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
	table func() []*kinds.Kind

	mu   sync.Mutex // guards what follows; building happens under it, once
	of   []*kinds.Kind
	docs map[string]*document // by "v2", "v3", "v3/<group version path>", with "+pb" for protobuf
	defs *definitions
}

// document is one encoded answer, compressed with gzip.
type document struct {
	packed []byte
	etag   string
}

// New returns a Handler over the kinds that table gives.
func New(table func() []*kinds.Kind) *Handler {
	return &Handler{table: table, docs: map[string]*document{}}
}

// ServeHTTP answers with JSON, or with protobuf when the client asks for it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/openapi/"), "/")
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
	if r.Header.Get("If-None-Match") == doc.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(doc.packed) // the client has gone: nobody to tell
		return
	}
	raw, err := unpack(doc.packed)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(raw) // as above
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
	raw, err := h.build(name)
	if err != nil || raw == nil {
		return nil, err
	}
	if protobuf {
		if raw, err = toProtobuf(name, raw); err != nil {
			return nil, err
		}
	}
	packed, err := pack(raw)
	if err != nil {
		return nil, err
	}
	doc := &document{packed: packed, etag: fmt.Sprintf("%q", digest(raw))}
	h.docs[full] = doc
	return doc, nil
}

func digest(raw []byte) string { return fmt.Sprintf("%X", sha256.Sum256(raw)) }

// build encodes one document as JSON. The caller holds mu.
func (h *Handler) build(name string) ([]byte, error) {
	if h.defs == nil {
		defs, err := loadDefinitions()
		if err != nil {
			return nil, err
		}
		h.defs = defs
	}
	if name == "v2" {
		return h.v2()
	}
	if name == "v3" {
		return h.v3Index()
	}
	path, ok := strings.CutPrefix(name, "v3/")
	if !ok {
		return nil, nil
	}
	return h.v3Group(path)
}

var info = map[string]string{"title": "Kubernetes", "version": "v1.37.1"}

func (h *Handler) v2() ([]byte, error) {
	schemas := map[string]any{}
	for name := range h.defs.raw {
		schema, err := h.defs.v2(name)
		if err != nil {
			return nil, err
		}
		schemas[name] = schema
	}
	paths := map[string]any{}
	for _, k := range h.of {
		for path, item := range h.defs.paths(k) {
			paths[path] = item.v2()
		}
	}
	return json.Marshal(map[string]any{"swagger": "2.0", "info": info, "paths": paths, "definitions": schemas})
}

// groups are the paths under which v3 has a document each.
func (h *Handler) groups() map[string][]*kinds.Kind {
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
	for path := range h.groups() {
		raw, err := h.v3Group(path)
		if err != nil {
			return nil, err
		}
		paths[path] = map[string]string{"serverRelativeURL": "/openapi/v3/" + path + "?hash=" + digest(raw)}
	}
	return json.Marshal(map[string]any{"paths": paths})
}

func (h *Handler) v3Group(path string) ([]byte, error) {
	served, ok := h.groups()[path]
	if !ok {
		return nil, nil
	}
	paths := map[string]any{}
	var roots []string
	for _, k := range served {
		for at, item := range h.defs.paths(k) {
			paths[at] = item.v3()
			roots = append(roots, item.models()...)
		}
	}
	schemas := map[string]any{}
	for _, name := range h.defs.reachable(roots) {
		schema, err := h.defs.v3(name)
		if err != nil {
			return nil, err
		}
		schemas[name] = schema
	}
	return json.Marshal(map[string]any{"openapi": "3.0.0", "info": info, "paths": paths,
		"components": map[string]any{"schemas": schemas}})
}

// toProtobuf is the form that old kubectl asks for first.
func toProtobuf(name string, raw []byte) ([]byte, error) {
	var doc proto.Message
	var err error
	if name == "v2" {
		doc, err = openapi_v2.ParseDocument(raw)
	} else {
		doc, err = openapi_v3.ParseDocument(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("encode openapi %s: %w", name, err)
	}
	return proto.Marshal(doc)
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
