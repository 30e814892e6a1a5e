package openapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/klauspost/compress/gzip"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

//go:embed definitions.json.gz
var packedDefinitions []byte

// Extensions and references in the embedded schemas.
const (
	gvkExtension = "x-kubernetes-group-version-kind"
	v2Extension  = "x-kubernetes-v2-schema"
	refKey       = "$ref"
	refV2        = "#/definitions/"
	refV3        = "#/components/schemas/"
)

// definitions are all schemas, each still encoded.
type definitions struct {
	raw map[string]json.RawMessage
	// model names the schema of a kind, refs the schemas that a schema uses.
	model map[schema.GroupVersionKind]string
	refs  map[string][]string
}

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack openapi: %w", err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("unpack openapi: %w", err)
	}
	return raw, nil
}

func loadDefinitions() (*definitions, error) {
	raw, err := unpack(packedDefinitions)
	if err != nil {
		return nil, err
	}
	d := &definitions{model: map[schema.GroupVersionKind]string{}, refs: map[string][]string{}}
	if err := json.Unmarshal(raw, &d.raw); err != nil {
		return nil, fmt.Errorf("decode openapi definitions: %w", err)
	}
	for name, one := range d.raw {
		d.refs[name] = refsIn(one, refV2)
		var has struct {
			Kinds []schema.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
		}
		if err := json.Unmarshal(one, &has); err != nil {
			return nil, fmt.Errorf("decode openapi definition %q: %w", name, err)
		}
		for _, gvk := range has.Kinds {
			d.model[gvk] = name
		}
	}
	return d, nil
}

// refsIn finds what an encoded schema refers to, at the place where its version of
// OpenAPI keeps schemas.
func refsIn(raw []byte, place string) (names []string) {
	for {
		i := bytes.Index(raw, []byte(`"`+place))
		if i < 0 {
			return names
		}
		raw = raw[i+1+len(place):]
		end := bytes.IndexByte(raw, '"')
		names = append(names, string(raw[:end]))
	}
}

// reachable are the roots and all they refer to, sorted.
func (d *definitions) reachable(roots []string) []string {
	seen := map[string]bool{}
	for len(roots) > 0 {
		name := roots[len(roots)-1]
		roots = roots[:len(roots)-1]
		if _, ok := d.raw[name]; ok && !seen[name] {
			seen[name] = true
			roots = append(roots, d.refs[name]...)
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func (d *definitions) decode(name string) (map[string]any, error) {
	var tree map[string]any
	if err := json.Unmarshal(d.raw[name], &tree); err != nil {
		return nil, fmt.Errorf("decode openapi definition %q: %w", name, err)
	}
	return tree, nil
}

// v2 is the schema as OpenAPI v2 can say it.
func (d *definitions) v2(name string) (any, error) {
	tree, err := d.decode(name)
	if err != nil {
		return nil, err
	}
	return toV2(tree), nil
}

// toV2 drops defaults, which upstream does not tell in v2, and takes the simpler form
// of what v2 cannot say.
func toV2(node any) any {
	switch n := node.(type) {
	case map[string]any:
		if simple, ok := n[v2Extension].(map[string]any); ok {
			for _, k := range []string{"description", gvkExtension} {
				if v, ok := n[k]; ok {
					simple[k] = v
				}
			}
			return simple
		}
		delete(n, "oneOf")
		delete(n, "default")
		for k, v := range n {
			if fields, ok := v.(map[string]any); ok && k == "properties" { // whose names are no keywords
				for name, field := range fields {
					fields[name] = toV2(field)
				}
				continue
			}
			n[k] = toV2(v)
		}
	case []any:
		for i := range n {
			n[i] = toV2(n[i])
		}
	}
	return node
}

// v3 is the schema as OpenAPI v3 says it.
func (d *definitions) v3(name string) (any, error) {
	tree, err := d.decode(name)
	if err != nil {
		return nil, err
	}
	delete(tree, v2Extension)
	return toV3(tree), nil
}

// toV3 points references to their new place and wraps those that have something
// beside them, which v3 would otherwise ignore.
func toV3(node any) any {
	switch n := node.(type) {
	case map[string]any:
		for k, v := range n {
			n[k] = toV3(v)
		}
		ref, ok := n[refKey].(string)
		if !ok {
			return n
		}
		ref = refV3 + ref[len(refV2):]
		if len(n) == 1 {
			n[refKey] = ref
			return n
		}
		delete(n, refKey)
		n["allOf"] = []any{map[string]any{refKey: ref}}
	case []any:
		for i := range n {
			n[i] = toV3(n[i])
		}
	}
	return node
}
