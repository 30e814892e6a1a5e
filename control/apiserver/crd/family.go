package crd

import (
	"fmt"
	"slices"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/sampan-dev/sampan/kinds"
)

// family is a definition as it is served: all its versions, which are converted
// into each other. It never changes; another state of the definition is another
// family.
type family struct {
	cfg      *Config
	def      *apiextensionsv1.CustomResourceDefinition
	versions map[string]*version
	// hub is the version that is stored.
	hub *version
	// types is the typed schema of all versions, made on first use.
	types func() (managedfields.TypeConverter, error)
}

// version is one version of a family.
type version struct {
	family *family
	spec   *apiextensionsv1.CustomResourceDefinitionVersion
	gvk    schema.GroupVersionKind
	// schema is what pruning and defaulting follow.
	schema *structural.Structural
	// props is the schema as it was written.
	props *apiextensions.JSONSchemaProps
	row   *kinds.Kind
	// checks are made on the first write: most versions are never written.
	checks func() (*checks, error)
}

// checks are what the objects of a version must pass.
type checks struct {
	object, status validation.SchemaValidator
	rules          *cel.Validator // nil when the schema has no rules
}

// newFamily takes a definition apart. It fails when the definition cannot be
// served at all, which its validation avoids.
func newFamily(cfg *Config, def *apiextensionsv1.CustomResourceDefinition) (*family, error) {
	f := &family{cfg: cfg, def: def, versions: map[string]*version{}}
	for i := range def.Spec.Versions {
		v, err := f.version(&def.Spec.Versions[i])
		if err != nil {
			return nil, fmt.Errorf("version %q: %w", def.Spec.Versions[i].Name, err)
		}
		f.versions[v.gvk.Version] = v
		if v.spec.Storage {
			f.hub = v
		}
	}
	if f.hub == nil {
		return nil, fmt.Errorf("no version is stored")
	}
	f.types = sync.OnceValues(f.buildTypes)
	for _, v := range f.versions {
		row, err := v.buildRow()
		if err != nil {
			return nil, fmt.Errorf("version %q: %w", v.gvk.Version, err)
		}
		v.row = row
	}
	return f, nil
}

func (f *family) version(spec *apiextensionsv1.CustomResourceDefinitionVersion) (*version, error) {
	v := &version{family: f, spec: spec, gvk: schema.GroupVersionKind{
		Group: f.def.Spec.Group, Version: spec.Name, Kind: f.def.Status.AcceptedNames.Kind}}
	v.checks = sync.OnceValues(v.buildChecks)
	if spec.Schema == nil || spec.Schema.OpenAPIV3Schema == nil {
		return v, nil
	}
	in := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(spec.Schema.DeepCopy(), in, nil); err != nil {
		return nil, fmt.Errorf("convert the schema: %w", err)
	}
	v.props = in.OpenAPIV3Schema
	s, err := structural.NewStructural(v.props)
	switch {
	case err != nil && f.preserves():
		return v, nil
	case err != nil:
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	v.schema = s.DeepCopy() // the defaults are still shared
	if f.preserves() {
		return v, nil
	}
	if err := defaulting.PruneDefaults(v.schema); err != nil {
		return nil, fmt.Errorf("prune the defaults: %w", err)
	}
	return v, nil
}

// preserves says that nothing is pruned at all: definitions of old, from before
// structural schemas.
func (f *family) preserves() bool { return f.def.Spec.PreserveUnknownFields }

// asks says that a webhook converts between the versions.
func (f *family) asks() bool {
	c := f.def.Spec.Conversion
	return c != nil && c.Strategy == apiextensionsv1.WebhookConverter
}

// namespaced says where the objects live.
func (f *family) namespaced() bool { return f.def.Spec.Scope == apiextensionsv1.NamespaceScoped }

func (v *version) buildChecks() (*checks, error) {
	var c checks
	var err error
	if c.object, _, err = validation.NewSchemaValidator(v.props); err != nil {
		return nil, fmt.Errorf("validator of %q: %w", v.gvk, err)
	}
	if v.hasStatus() && v.props != nil {
		if status, ok := v.props.Properties["status"]; ok {
			if c.status, _, err = validation.NewSchemaValidator(&status); err != nil {
				return nil, fmt.Errorf("validator of the status of %q: %w", v.gvk, err)
			}
		}
	}
	c.rules = cel.NewValidator(v.schema, true, celconfig.PerCallLimit)
	return &c, nil
}

func (v *version) hasStatus() bool {
	return v.spec.Subresources != nil && v.spec.Subresources.Status != nil
}

// scale is the version's scale subresource, nil for none.
func (v *version) scale() *apiextensionsv1.CustomResourceSubresourceScale {
	if v.spec.Subresources == nil {
		return nil
	}
	return v.spec.Subresources.Scale
}

// rows are those to serve: of the versions that are served, and of the stored one,
// hidden if it is not.
func (f *family) rows() []*kinds.Kind {
	var rows []*kinds.Kind
	for _, spec := range f.def.Spec.Versions {
		if spec.Served || spec.Storage {
			rows = append(rows, f.versions[spec.Name].row)
		}
	}
	return slices.Clip(rows)
}
