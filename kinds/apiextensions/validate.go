package apiextensions

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/sampan-dev/sampan/kinds"
)

// formats are those that the schemas of this version's predecessor know: what is
// not among them is stored, and not checked.
var formats = version.MajorMinor(1, 36)

// internal is the form that the published validation takes.
func internal(d *definition) (*apiextensions.CustomResourceDefinition, *field.Error) {
	out := &apiextensions.CustomResourceDefinition{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(d.DeepCopy(), out, nil); err != nil {
		return nil, field.Invalid(kinds.NewPath("spec").Field(), "", err.Error())
	}
	return out, nil
}

func validate(d *definition) field.ErrorList {
	in, wrong := internal(d)
	if wrong != nil {
		return field.ErrorList{wrong}
	}
	unseen := unseenFields(in)
	return append(own(validation.ValidateCustomResourceDefinition(context.Background(), in)), unseen...)
}

func validateUpdate(d, old *definition) field.ErrorList {
	return changed(d, old, validation.ValidateCustomResourceDefinitionUpdate)
}

func validateStatus(d, old *definition) field.ErrorList {
	return changed(d, old, validation.ValidateUpdateCustomResourceDefinitionStatus)
}

func changed(d, old *definition, check func(_ context.Context, obj, old *apiextensions.CustomResourceDefinition) field.ErrorList) field.ErrorList {
	in, wrong := internal(d)
	if wrong != nil {
		return field.ErrorList{wrong}
	}
	before, wrong := internal(old)
	if wrong != nil {
		return field.ErrorList{wrong}
	}
	unseen := unseenFields(in)
	return append(own(check(context.Background(), in, before)), unseen...)
}

// unseenFields takes the selectable fields away that no schema tells of, and says so:
// the published validation looks for them in a schema that is not there, and panics.
func unseenFields(d *apiextensions.CustomResourceDefinition) (errs field.ErrorList) {
	at := kinds.NewPath("spec")
	take := func(fields *[]apiextensions.SelectableField, v *apiextensions.CustomResourceValidation, at *kinds.Path) {
		if len(*fields) == 0 || v == nil { // without any, it says so itself
			return
		}
		if s, err := structural.NewStructural(v.OpenAPIV3Schema); s == nil || err != nil {
			*fields = nil
			errs = append(errs, field.Invalid(at.Child("selectableFields").Field(), "", "may only be set when the schema is structural"))
		}
	}
	take(&d.Spec.SelectableFields, d.Spec.Validation, at)
	for i := range d.Spec.Versions {
		v := &d.Spec.Versions[i]
		take(&v.SelectableFields, v.Schema, at.Child("versions").Index(i))
	}
	return errs
}

// own leaves out what the generic handler says of metadata already: all but the
// rules for the name, its prefix and for the approval of protected groups.
func own(errs field.ErrorList) field.ErrorList {
	return slices.DeleteFunc(errs, func(e *field.Error) bool {
		if e.Field == "metadata.name" {
			return e.Type == field.ErrorTypeRequired || strings.HasPrefix(e.Detail, "field is immutable")
		}
		approval := strings.Contains(e.Field, apiextensionsv1.KubeAPIApprovedAnnotation)
		return strings.HasPrefix(e.Field, "metadata.") && !approval && e.Field != "metadata.generateName"
	})
}

// warnings are about what a schema says in vain; on update, about what it did not
// say before.
func warnings(d, old *definition) []string {
	said := inVain(d)
	if old == nil {
		return said
	}
	before := inVain(old)
	return slices.DeleteFunc(said, func(w string) bool { return slices.Contains(before, w) })
}

func inVain(d *definition) []string {
	in, wrong := internal(d)
	if wrong != nil {
		return nil
	}
	var unknown, sets []string
	look := func(s *apiextensions.JSONSchemaProps) bool {
		typed := &spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}}
		for _, f := range schemavalidation.GetUnrecognizedFormats(typed, formats) {
			unknown = append(unknown, fmt.Sprintf("unrecognized format %q", f))
		}
		if s.XListType != nil && *s.XListType == "set" && s.Items != nil && s.Items.Schema != nil {
			if t := s.Items.Schema.Type; t == "object" || t == "array" {
				sets = append(sets, fmt.Sprintf("x-kubernetes-list-type: set for items of type %q is not supported by server-side apply or CEL validation rules", t))
			}
		}
		return false
	}
	if in.Spec.Validation != nil && in.Spec.Validation.OpenAPIV3Schema != nil {
		validation.SchemaHas(in.Spec.Validation.OpenAPIV3Schema, look)
	}
	for _, v := range in.Spec.Versions {
		if v.Schema != nil && v.Schema.OpenAPIV3Schema != nil {
			validation.SchemaHas(v.Schema.OpenAPIV3Schema, look)
		}
	}
	slices.Sort(sets)
	return append(unknown, slices.Compact(sets)...)
}
