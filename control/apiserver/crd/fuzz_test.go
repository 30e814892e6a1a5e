package crd

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/kinds"
	definition "github.com/sampan-dev/sampan/kinds/apiextensions"
)

// boats is a definition with something of everything that a schema can say.
const boats = `
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, listKind: BoatList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.crew, statusReplicasPath: .status.crew, labelSelectorPath: .status.selector}}
    additionalPrinterColumns: [{name: P, type: integer, jsonPath: .spec.planks}, {name: D, type: date, jsonPath: .spec.at}]
    selectableFields: [{jsonPath: .spec.home}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [planks]
            properties:
              planks: {type: integer, minimum: 3}
              crew: {type: integer}
              at: {type: string, format: date-time}
              home: {type: string, default: harbour, maxLength: 20, pattern: "^[a-z]*$"}
              sails: {type: array, maxItems: 5, x-kubernetes-list-type: set, items: {type: string, maxLength: 9}}
              oars: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [side], items: {type: object, required: [side], properties: {side: {type: string}, length: {type: integer, default: 2}}}}
              depth: {x-kubernetes-int-or-string: true}
              cargo: {type: object, x-kubernetes-preserve-unknown-fields: true}
              inner: {type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object, nullable: true}}}
              more: {type: object, additionalProperties: {type: number}}
            x-kubernetes-validations:
            - {rule: "!has(self.crew) || self.crew <= self.planks", message: too many aboard}
            - {rule: "self.planks >= oldSelf.planks"}
          status: {type: object, properties: {crew: {type: integer}, selector: {type: string}}}
`

// prepared is a definition as the server has it once its names are accepted.
func prepared(raw []byte) (*apiextensionsv1.CustomResourceDefinition, bool) {
	def := &apiextensionsv1.CustomResourceDefinition{}
	if json.Unmarshal(raw, def) != nil {
		return nil, false
	}
	row := definition.Definition()
	row.Strategy.Default(def)
	row.Strategy.PrepareCreate(def)
	if len(row.Strategy.Validate(def)) > 0 {
		row.Strategy.Warnings(def, nil)
		return nil, false
	}
	def.Status.AcceptedNames = def.Spec.Names
	return def, true
}

func config() *Config { return &Config{Now: time.Now, Log: slog.New(slog.DiscardHandler)} }

func asJSON(t testing.TB, text string) []byte {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// FuzzDefinition: whatever passes the validation of definitions can be served, and
// published, and nothing that is sent takes the server down.
func FuzzDefinition(f *testing.F) {
	f.Add(asJSON(f, boats))
	for _, schema := range []string{
		`{"type":"object"}`, `{}`, `{"type":"object","properties":{"a":{"type":"array","items":{"type":"string"}}}}`,
		`{"type":"object","x-kubernetes-preserve-unknown-fields":true}`, `{"$ref":"#/definitions/x"}`,
		`{"type":"object","properties":{"a":{"default":{"b":[1]},"type":"object"}}}`,
		`{"type":"object","x-kubernetes-validations":[{"rule":"self.x.y.z(["}]}`,
		`{"type":"object","properties":{"a":{"pattern":"(((","type":"string"}}}`,
		`{"not":{"anyOf":[{"type":"object"}]}}`,
	} {
		f.Add([]byte(`{"metadata":{"name":"boats.sea.example.com"},"spec":{"group":"sea.example.com","scope":"Cluster","names":{"plural":"boats","kind":"Boat"},` +
			`"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":` + schema + `}}]}}`))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		def, ok := prepared(raw)
		if !ok {
			return
		}
		served, err := newFamily(config(), def)
		if err != nil {
			t.Fatalf("a valid definition cannot be served: %v", err)
		}
		for _, v := range served.versions {
			if _, err := v.checks(); err != nil {
				t.Errorf("a valid definition has no checks: %v", err)
			}
			v.models(true, true)
			v.models(false, true)
		}
	})
}

// FuzzObject: a custom resource that was accepted comes back from the store as it
// was accepted.
func FuzzObject(f *testing.F) {
	def, ok := prepared(asJSON(f, boats))
	if !ok {
		f.Fatal("the definition is invalid")
	}
	served, err := newFamily(config(), def)
	if err != nil {
		f.Fatal(err)
	}
	v := served.versions["v1"]
	for _, spec := range []string{
		`{"planks":3}`, `{"planks":"3"}`, `null`, `{"planks":3.5,"oars":[{"side":"l"},{"side":"l"}]}`, `{"planks":1e400}`,
		`{"planks":9,"inner":{"apiVersion":"v1","kind":"X","metadata":{"name":"a","labels":{"a":1}},"spec":null}}`,
		`{"planks":9,"depth":"x","cargo":{"a":[[[{}]]]},"more":{"a":1.5},"sails":["a","a"],"gone":1}`,
	} {
		f.Add([]byte(`{"apiVersion":"sea.example.com/v1","kind":"Boat","metadata":{"name":"a","labels":{"a":"b"}},"spec":` + spec + `,"status":{"crew":1}}`))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		obj := &unstructured.Unstructured{}
		if obj.UnmarshalJSON(raw) != nil {
			return
		}
		obj.SetGroupVersionKind(v.gvk)
		if _, err := v.coerce(content(obj), strictly); err != nil {
			return
		}
		v.setDefaults(obj)
		v.prepareCreate(obj)
		faults := v.validate(obj)
		v.row.Table.Row(obj, time.Unix(0, 0))
		v.row.Fields(obj)
		scaleOf(obj, v.scale())
		if len(faults) > 0 {
			return
		}
		stored, err := v.save(t.Context(), obj)
		if err != nil {
			t.Fatalf("a valid object cannot be stored: %v", err)
		}
		loaded, err := v.load(t.Context(), stored)
		if err != nil {
			t.Fatalf("a stored object cannot be loaded: %v", err)
		}
		back := loaded[0]
		again, err := v.save(t.Context(), back)
		if err != nil || !bytes.Equal(again, stored) {
			t.Fatalf("stored %s\nloaded %s (%v)", stored, again, err)
		}
		if errs := v.validateUpdate(back, obj); len(errs) > 0 && kinds.Same(content(back), content(obj)) {
			t.Fatalf("an unchanged object is no longer valid: %v", errs)
		}
	})
}

// FuzzConversion: what a webhook sends back is the same object in another version,
// or refused.
func FuzzConversion(f *testing.F) {
	for _, objects := range []string{
		`{"apiVersion":"a.b/v2","kind":"A","metadata":{"name":"n","namespace":"x","uid":"u","labels":{"a":"b"}},"spec":{}}`,
		`{"apiVersion":"a.b/v2","kind":"A","metadata":{"name":"n","namespace":"x","uid":"u","annotations":{"a":1},"finalizers":["f"]}}`,
		`{"apiVersion":"a.b/v2","kind":"A","metadata":[]}`, `null`, `{"apiVersion":"a.b/v2","kind":"AList","items":[{"kind":"A"}]}`,
	} {
		f.Add([]byte(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{"uid":"u","result":{"status":"Success"},"convertedObjects":[` + objects + `]}}`))
	}
	f.Add([]byte(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{"uid":"u","result":{"status":"Failure","message":"no"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		answer := &apiextensionsv1.ConversionReview{}
		if json.Unmarshal(data, answer) != nil {
			return
		}
		raw, err := converted(answer, "u", apiextensionsv1.SchemeGroupVersion.String())
		if err != nil {
			return
		}
		c := conversion{to: schema.GroupVersionKind{Group: "a.b", Version: "v2", Kind: "A"}}
		for i := range raw {
			in := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "a.b/v1", "kind": "A",
				"metadata": map[string]any{"name": "n", "namespace": "x", "uid": "u", "resourceVersion": "7", "finalizers": []any{"f"}}}}
			out := &unstructured.Unstructured{}
			if out.UnmarshalJSON(raw[i].Raw) != nil || c.check(in, out) != nil {
				continue
			}
			if out.GetResourceVersion() != "7" || out.GetUID() != "u" || len(out.GetFinalizers()) != 1 || out.GetFinalizers()[0] != "f" || len(out.GetOwnerReferences()) > 0 {
				t.Errorf("%s became %v", raw[i].Raw, out.Object)
			}
			if _, err := out.MarshalJSON(); err != nil {
				t.Errorf("%s cannot be written: %v", raw[i].Raw, err)
			}
		}
	})
}
