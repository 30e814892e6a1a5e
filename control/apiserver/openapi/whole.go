package openapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sampan-dev/sampan/kinds"
)

// Whole gives the OpenAPI v3 schema of a kind with all references put in, for type
// checks; nil for a kind that has none. Where a schema contains itself it is cut off
// and anything goes.
func (h *Handler) Whole(k *kinds.Kind) (*spec.Schema, error) {
	root, all, err := h.closure(k)
	if err != nil || root == "" {
		return nil, err
	}
	return whole(all[root], all, map[string]bool{root: true}), nil
}

// closure is the name of a kind's schema and all schemas that it needs.
func (h *Handler) closure(k *kinds.Kind) (string, map[string]*spec.Schema, error) {
	models, custom, err := h.custom(k, false)
	if err != nil {
		return "", nil, err
	}
	if !custom {
		root, err := h.modelOf(k.GVK)
		if err != nil || root == "" {
			return "", nil, err
		}
		all, err := h.schemas(root)
		return root, all, err
	}
	meta, err := h.Metadata()
	if err != nil {
		return "", nil, err
	}
	all := maps.Clone(meta)
	for name, raw := range models {
		s := &spec.Schema{}
		if err := json.Unmarshal(raw, s); err != nil {
			return "", nil, fmt.Errorf("decode the schema %q: %w", name, err)
		}
		all[name] = s
	}
	return customModel(k.GVK), all, nil
}

func (h *Handler) modelOf(gvk schema.GroupVersionKind) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.load(); err != nil {
		return "", err
	}
	return h.defs.model[gvk], nil
}

// whole copies s with references put in; within are those that s is a part of.
func whole(s *spec.Schema, all map[string]*spec.Schema, within map[string]bool) *spec.Schema {
	if s == nil {
		return nil
	}
	if name := refOf(s); name != "" {
		if within[name] || all[name] == nil {
			anything := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
			anything.AddExtension("x-kubernetes-preserve-unknown-fields", true)
			return anything
		}
		within[name] = true
		defer delete(within, name)
		return whole(all[name], all, within)
	}
	out := *s
	out.Properties = nil
	for name, p := range s.Properties {
		if out.Properties == nil {
			out.Properties = make(map[string]spec.Schema, len(s.Properties))
		}
		out.Properties[name] = *whole(&p, all, within)
	}
	if s.Items != nil && s.Items.Schema != nil {
		out.Items = &spec.SchemaOrArray{Schema: whole(s.Items.Schema, all, within)}
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		out.AdditionalProperties = &spec.SchemaOrBool{Allows: true, Schema: whole(s.AdditionalProperties.Schema, all, within)}
	}
	return &out
}

// refOf is the name that a schema stands for, directly or as the only one of allOf.
func refOf(s *spec.Schema) string {
	ref := s.Ref.String()
	if ref == "" && len(s.AllOf) == 1 {
		ref = s.AllOf[0].Ref.String()
	}
	return strings.TrimPrefix(ref, refV3)
}
