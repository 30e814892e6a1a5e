package crd

import (
	"fmt"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kubeversion "k8s.io/apimachinery/pkg/version"

	"github.com/sampan-dev/sampan/kinds"
)

// buildRow says what the kind is in this version.
func (v *version) buildRow() (*kinds.Kind, error) {
	names := &v.family.def.Status.AcceptedNames
	listKind := v.gvk
	listKind.Kind = names.ListKind
	row := &kinds.Kind{
		GVK:        v.gvk,
		ListKind:   names.ListKind,
		Resource:   names.Plural,
		Singular:   names.Singular,
		Short:      slices.Clone(names.ShortNames),
		Categories: slices.Clone(names.Categories),
		Namespaced: v.family.namespaced(),
		Storage:    v.gvk.Group + "/" + names.Plural,
		New: func() kinds.Object {
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(v.gvk)
			return u
		},
		NewList: func() runtime.Object {
			l := &unstructured.UnstructuredList{}
			l.SetGroupVersionKind(listKind)
			return l
		},
		Hidden:  !v.spec.Served,
		Warning: v.deprecation(),
		Strategy: kinds.Strategy{
			Default:                   v.setDefaults,
			PrepareCreate:             v.prepareCreate,
			PrepareUpdate:             v.prepareUpdate,
			Validate:                  v.validate,
			ValidateUpdate:            v.validateUpdate,
			Warnings:                  finalizerWarnings,
			ForbidUnconditionalUpdate: true,
			Generation:                true,
		},
		Table: kinds.Table{},
		Custom: &kinds.Custom{
			Load:    v.load,
			Save:    v.save,
			Coerce:  func(obj kinds.Object) ([]string, error) { return v.coerce(content(obj), strictly) },
			Convert: v.family.convertFor,
			Asks:    v.family.asks(),
			Stored:  v.family.hub.gvk,

			StoredServed: v.family.hub.spec.Served,
		},
	}
	row.Fields, row.FieldLabels = v.selectable()
	row.Table = v.table()
	if v.hasStatus() {
		row.Subresources = append(row.Subresources, v.statusPart())
	}
	if scale := v.scale(); scale != nil {
		row.Subresources = append(row.Subresources, v.scalePart(scale))
	}
	return row, nil
}

// deprecation is what users of a deprecated version are told; "" for others.
func (v *version) deprecation() string {
	switch {
	case !v.spec.Deprecated:
		return ""
	case v.spec.DeprecationWarning != nil:
		return *v.spec.DeprecationWarning
	}
	spec := &v.family.def.Spec
	text := fmt.Sprintf("%s/%s %s is deprecated", spec.Group, v.spec.Name, spec.Names.Kind)
	best := ""
	for _, other := range spec.Versions {
		newer := kubeversion.CompareKubeAwareVersionStrings(other.Name, v.spec.Name) > 0
		if other.Served && !other.Deprecated && newer && (best == "" || kubeversion.CompareKubeAwareVersionStrings(other.Name, best) > 0) {
			best = other.Name
		}
	}
	if best != "" {
		text += fmt.Sprintf("; use %s/%s %s", spec.Group, best, spec.Names.Kind)
	}
	return text
}

// statusPart is the status subresource: nothing but the status is taken over.
func (v *version) statusPart() kinds.Subresource {
	return kinds.Subresource{
		Name:  "status",
		Verbs: []string{"get", "patch", "update"},
		Copy: func(next kinds.Object, body runtime.Object) error {
			from, ok := body.(*unstructured.Unstructured)
			if !ok {
				return fmt.Errorf("status of %q: body is a %T", next.GetName(), body)
			}
			status, has := from.Object["status"]
			if !has {
				delete(content(next), "status")
				return nil
			}
			content(next)["status"] = runtime.DeepCopyJSONValue(status)
			return nil
		},
		ValidateUpdate: v.validateStatus,
		Reset:          []string{"metadata", "spec"},
	}
}

// content is an object's tree. It panics for a typed object, which is a mistake in
// the table.
func content(obj kinds.Object) map[string]any {
	u := obj.(*unstructured.Unstructured)
	if u.Object == nil {
		u.Object = map[string]any{}
	}
	return u.Object
}

// broken reports that a version's schema cannot be used: its definition's
// validation should have refused it.
func broken(err error) field.ErrorList {
	return field.ErrorList{field.InternalError(nil, err)}
}

// mayServe says that a definition has been given all the names that a kind needs.
func mayServe(def *apiextensionsv1.CustomResourceDefinition) bool {
	names := &def.Status.AcceptedNames
	return names.Plural != "" && names.Singular != "" && names.Kind != "" && names.ListKind != ""
}
