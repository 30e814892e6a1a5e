package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"

	"github.com/sampan-dev/sampan/kinds"
)

// fixedV2 is what built-in kinds have in the v2 document: the insides of its
// "paths", "definitions" and "parameters", and the whole as protobuf.
type fixedV2 struct {
	of                         []*kinds.Kind
	paths, definitions, shared []byte
	protobuf                   []byte // nil until somebody asks
}

// groupDoc is a group's v3 document as some kinds had it.
type groupDoc struct {
	of  []*kinds.Kind
	raw []byte
}

// v2 puts the document together of the built-in part and of what is custom.
func (h *Handler) v2(protobuf bool) ([]byte, error) {
	builtIn, custom := split(h.of)
	if h.fixed == nil || !slices.Equal(h.fixed.of, builtIn) {
		fixed, err := h.fixedPart(builtIn)
		if err != nil {
			return nil, err
		}
		h.fixed = fixed
	}
	paths, definitions, err := h.customPart(custom)
	if err != nil {
		return nil, err
	}
	if protobuf {
		return h.v2Protobuf(paths, definitions)
	}
	return document2(join(h.fixed.paths, paths), join(h.fixed.definitions, definitions), h.fixed.shared)
}

func split(all []*kinds.Kind) (builtIn, custom []*kinds.Kind) {
	for _, k := range all {
		if k.Custom != nil {
			custom = append(custom, k)
			continue
		}
		builtIn = append(builtIn, k)
	}
	return builtIn, custom
}

// document2 is a whole v2 document around the insides of its large objects.
func document2(paths, definitions, shared []byte) ([]byte, error) {
	about, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("encode openapi v2: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"swagger":"2.0","info":%s,"paths":{`, about)
	b.Write(paths)
	b.WriteString(`},"definitions":{`)
	b.Write(definitions)
	b.WriteString(`},"parameters":{`)
	b.Write(shared)
	secure, err := json.Marshal(security)
	if err != nil {
		return nil, fmt.Errorf("encode openapi v2: %w", err)
	}
	fmt.Fprintf(&b, `},"securityDefinitions":%s,"security":[{"BearerToken":[]}]}`, secure)
	return b.Bytes(), nil
}

// inside is an encoded object without its braces, keys in order.
func inside(object any) ([]byte, error) {
	raw, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encode openapi: %w", err)
	}
	return raw[1 : len(raw)-1], nil
}

// join concatenates the insides of two objects.
func join(a, b []byte) []byte {
	if len(a) == 0 || len(b) == 0 {
		return append(slices.Clip(a), b...)
	}
	return slices.Concat(a, []byte{','}, b)
}

func (h *Handler) fixedPart(of []*kinds.Kind) (*fixedV2, error) {
	schemas, paths, shared := map[string]any{}, map[string]any{}, map[string]any{}
	// What custom kinds refer to is there too: metadata, and what deletions take.
	models := []string{objectMetaModel, metaModels + "ListMeta", optionsModel, statusModel, patchModel}
	add := func(items map[string]*pathItem) {
		for path, item := range items {
			paths[path] = item.v2(shared)
			models = append(models, item.models()...)
		}
	}
	for _, k := range of {
		add(h.defs.paths(k))
	}
	for _, items := range roots(of) {
		add(items)
	}
	// The paths of custom kinds are made without regard to what is shared.
	v2Parameters(slices.Concat([]parameter{pretty}, listing, reading, creating, updating, patching, deleting, deletingAll), shared)
	for _, name := range h.defs.reachable(models) {
		schema, err := h.defs.v2(name)
		if err != nil {
			return nil, err
		}
		schemas[name] = schema
	}
	out := &fixedV2{of: of}
	var err error
	if out.shared, err = inside(shared); err != nil {
		return nil, err
	}
	if out.paths, err = inside(paths); err != nil {
		return nil, err
	}
	out.definitions, err = inside(schemas)
	return out, err
}

// customPart is the same for custom kinds.
func (h *Handler) customPart(of []*kinds.Kind) (paths, definitions []byte, err error) {
	schemas, items := map[string]json.RawMessage{}, map[string]any{}
	for _, k := range of {
		models, ok, err := h.custom(k, true)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue // gone since the table was read
		}
		maps.Copy(schemas, models)
		for path, item := range h.defs.paths(k) {
			items[path] = item.v2(map[string]any{})
		}
	}
	if paths, err = inside(items); err != nil {
		return nil, nil, err
	}
	definitions, err = inside(schemas)
	return paths, definitions, err
}

// v2Protobuf is the form that old kubectl asks for first. Protobuf messages one
// after the other are one message: the built-in part is parsed only once.
func (h *Handler) v2Protobuf(paths, definitions []byte) ([]byte, error) {
	if h.fixed.protobuf == nil {
		raw, err := parseV2(h.fixed.paths, h.fixed.definitions, h.fixed.shared)
		if err != nil {
			return nil, err
		}
		h.fixed.protobuf, err = proto.Marshal(raw)
		if err != nil {
			return nil, fmt.Errorf("encode openapi v2: %w", err)
		}
	}
	if len(paths) == 0 && len(definitions) == 0 {
		return h.fixed.protobuf, nil
	}
	own, err := parseV2(paths, definitions, nil)
	if err != nil {
		return nil, err
	}
	own.Swagger, own.Info, own.SecurityDefinitions, own.Security = "", nil, nil, nil
	raw, err := proto.Marshal(own)
	if err != nil {
		return nil, fmt.Errorf("encode openapi v2: %w", err)
	}
	return slices.Concat(h.fixed.protobuf, raw), nil
}

func parseV2(paths, definitions, shared []byte) (*openapi_v2.Document, error) {
	raw, err := document2(paths, definitions, shared)
	if err != nil {
		return nil, err
	}
	doc, err := openapi_v2.ParseDocument(raw)
	if err != nil {
		return nil, fmt.Errorf("encode openapi v2: %w", err)
	}
	return doc, nil
}

// v3Group is the document of one group version, or of what is above kinds; nil when
// there is none.
func (h *Handler) v3Group(path string) ([]byte, error) {
	served, above := h.byGroup()[path], roots(h.of)[path]
	if served == nil && above == nil {
		delete(h.groups, path)
		return nil, nil
	}
	if have := h.groups[path]; have != nil && slices.Equal(have.of, served) {
		return have.raw, nil
	}
	paths, schemas := map[string]any{}, map[string]any{}
	var used []string
	add := func(items map[string]*pathItem) {
		for at, item := range items {
			paths[at] = item.v3()
			used = append(used, item.models()...)
		}
	}
	add(above)
	for _, k := range served {
		if k.Custom != nil {
			models, ok, err := h.custom(k, false)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue // gone since the table was read
			}
			for name, raw := range models {
				schemas[name] = raw
				used = append(used, refsIn(raw, refV3)...)
			}
		}
		add(h.defs.paths(k))
	}
	for _, name := range h.defs.reachable(used) {
		schema, err := h.defs.v3(name)
		if err != nil {
			return nil, err
		}
		schemas[name] = schema
	}
	raw, err := json.Marshal(map[string]any{"openapi": "3.0.0", "info": info, "paths": paths,
		"components": map[string]any{"schemas": schemas, "securitySchemes": security}})
	if err != nil {
		return nil, fmt.Errorf("encode openapi v3 of %q: %w", path, err)
	}
	h.groups[path] = &groupDoc{of: served, raw: raw}
	return raw, nil
}

func toProtobuf(raw []byte) ([]byte, error) {
	doc, err := openapi_v3.ParseDocument(raw)
	if err != nil {
		return nil, fmt.Errorf("encode openapi v3: %w", err)
	}
	return proto.Marshal(doc)
}
