package crd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sampan-dev/sampan/kinds"
)

// Where references to other schemas point, and what they refer to.
const (
	v2Schemas  = "#/definitions/"
	v3Schemas  = "#/components/schemas/"
	objectMeta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	listMeta   = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
	gvkKey     = "x-kubernetes-group-version-kind"
	fieldsKey  = "x-kubernetes-selectable-fields"
)

// Models gives the OpenAPI schemas of a custom kind and of its list, by name, as
// OpenAPI v2 or v3 has them. ok is false for rows that are none of these
// definitions'.
func (d *Definitions) Models(k *kinds.Kind, v2 bool) (models map[string]json.RawMessage, ok bool, err error) {
	v := d.of(k)
	if v == nil {
		return nil, false, nil
	}
	models = map[string]json.RawMessage{}
	for name, s := range v.models(v2, true) {
		raw, err := json.Marshal(s)
		if err != nil {
			return nil, true, fmt.Errorf("encode the schema of %q: %w", v.gvk, err)
		}
		models[name] = raw
	}
	return models, true, nil
}

// ModelName is under which name OpenAPI has a custom kind: the group turned
// around, then version and kind.
func ModelName(gvk schema.GroupVersionKind) string {
	group := strings.Split(gvk.Group, ".")
	slices.Reverse(group)
	return strings.Join(group, ".") + "." + gvk.Version + "." + gvk.Kind
}

// models are the schemas of the kind and of its list. selectable makes them as
// they are published: with the fields by which lists may choose.
func (v *version) models(v2, selectable bool) map[string]*spec.Schema {
	b := modeller{version: v, refs: v3Schemas, v2: v2, wrap: selectable && !v2}
	if v2 {
		b.refs = v2Schemas
	}
	list := v.gvk
	list.Kind = v.family.def.Status.AcceptedNames.ListKind
	one, many := b.object(), b.list(list)
	one.AddExtension(gvkKey, kindsOf(v.gvk))
	many.AddExtension(gvkKey, kindsOf(list))
	if selectable && len(v.spec.SelectableFields) > 0 {
		var at []any
		for _, f := range v.spec.SelectableFields {
			at = append(at, map[string]any{"fieldPath": strings.TrimPrefix(f.JSONPath, ".")})
		}
		one.AddExtension(fieldsKey, at)
		many.AddExtension(fieldsKey, at)
	}
	return map[string]*spec.Schema{ModelName(v.gvk): one, ModelName(list): many}
}

func kindsOf(gvk schema.GroupVersionKind) []any {
	return []any{map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind}}
}

// modeller makes a version's schemas in one version of OpenAPI.
type modeller struct {
	version *version
	refs    string
	v2      bool
	// wrap puts references with something beside them into an allOf: OpenAPI v3
	// would ignore what is beside them otherwise.
	wrap bool
}

// object is the kind's schema with what every object has. A schema that is missing
// or not structural says nothing, and so does, in v2, one that keeps unknown
// fields: kubectl takes whatever is listed for all there is.
func (b modeller) object() *spec.Schema {
	nothing := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	if b.version.props == nil {
		return nothing
	}
	s, err := structural.NewStructural(b.version.props)
	if err != nil || len(structural.ValidateStructural(nil, s)) > 0 {
		return nothing
	}
	s = s.Unfold()
	if b.v2 && (s.XPreserveUnknownFields || b.version.family.preserves()) {
		return nothing
	}
	if b.v2 {
		s = openapiv2.ToStructuralOpenAPIV2(s)
	}
	out := s.ToKubeOpenAPI()
	out.SetProperty("metadata", b.ref(objectMeta, metav1.PartialObjectMetadata{}.SwaggerDoc()["metadata"]))
	b.typeMeta(out)
	b.embedded(out)
	return out
}

func (b modeller) list(gvk schema.GroupVersionKind) *spec.Schema {
	plural := b.version.family.def.Status.AcceptedNames.Plural
	items := spec.ArrayProperty(spec.RefSchema(b.refs + ModelName(b.version.gvk)))
	items.Description = fmt.Sprintf("List of %s. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", plural)
	out := &spec.Schema{}
	out.Typed("object", "").WithDescription(fmt.Sprintf("%s is a list of %s", gvk.Kind, b.version.gvk.Kind)).WithRequired("items")
	out.SetProperty("items", *items)
	out.SetProperty("metadata", b.ref(listMeta, metav1.PartialObjectMetadataList{}.SwaggerDoc()["metadata"]))
	b.typeMeta(out)
	return out
}

func (b modeller) ref(name, description string) spec.Schema {
	to := spec.RefSchema(b.refs + name)
	if b.wrap {
		to = spec.ComposedSchema(*to)
	}
	return *to.WithDescription(description)
}

func (b modeller) typeMeta(s *spec.Schema) {
	docs := metav1.TypeMeta{}.SwaggerDoc()
	for _, name := range []string{"apiVersion", "kind"} {
		s.SetProperty(name, *spec.StringProperty().WithDescription(docs[name]))
	}
}

// embedded gives whole objects inside the object what every object has.
func (b modeller) embedded(s *spec.Schema) {
	if s == nil {
		return
	}
	for name := range s.Properties {
		inner := s.Properties[name]
		b.embedded(&inner)
		s.Properties[name] = inner
	}
	if s.Items != nil {
		b.embedded(s.Items.Schema)
	}
	if s.AdditionalProperties != nil {
		b.embedded(s.AdditionalProperties.Schema)
	}
	keeps, _ := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields")
	object, _ := s.Extensions.GetBool("x-kubernetes-embedded-resource")
	if !object || keeps && b.v2 {
		return
	}
	s.SetProperty("apiVersion", *spec.StringProperty().WithDescription("apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"))
	s.SetProperty("kind", *spec.StringProperty().WithDescription("kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"))
	s.SetProperty("metadata", b.ref(objectMeta, metav1.PartialObjectMetadata{}.SwaggerDoc()["metadata"]))
	for _, name := range []string{"kind", "apiVersion"} {
		if !slices.Contains(s.Required, name) {
			s.Required = append(s.Required, name)
		}
	}
}

// buildTypes makes the typed schema of all versions: whose fields are lists with
// keys, sets or atoms.
func (f *family) buildTypes() (managedfields.TypeConverter, error) {
	known, err := f.cfg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("typed schema of %q: %w", f.def.Name, err)
	}
	all := map[string]*spec.Schema{}
	for name, s := range known {
		all[name] = s
	}
	for _, v := range f.versions {
		for name, s := range v.models(false, false) {
			all[name] = s
		}
	}
	types, err := managedfields.NewTypeConverter(all, f.preserves())
	if err != nil {
		return nil, fmt.Errorf("typed schema of %q: %w", f.def.Name, err)
	}
	return types, nil
}
