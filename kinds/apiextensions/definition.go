// Package apiextensions says what the kind of the apiextensions.k8s.io group is:
// the CustomResourceDefinition, which makes kinds. What becomes of a definition
// (its conditions, the kinds that it serves, their removal) is
// control/apiserver/crd's.
//
// Facts: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions. Its validation of
// definitions (structural schemas, CEL rules and their cost, defaults) is a
// published package and is used as it is.
package apiextensions

import (
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Kinds lists the group's kinds.
func Kinds() []*kinds.Kind { return []*kinds.Kind{Definition()} }

type definition = apiextensionsv1.CustomResourceDefinition

// Definition is the CustomResourceDefinition.
func Definition() *kinds.Kind {
	return &kinds.Kind{
		GVK:        apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"),
		Resource:   "customresourcedefinitions",
		Singular:   "customresourcedefinition",
		Short:      []string{"crd", "crds"},
		Categories: []string{"api-extensions"},
		Storage:    "apiextensions.k8s.io/customresourcedefinitions",
		New:        func() kinds.Object { return &definition{} },
		NewList:    func() runtime.Object { return &apiextensionsv1.CustomResourceDefinitionList{} },
		Strategy: kinds.Strategy{
			AnyFinalizer:  true,
			Default:       kinds.Each(setDefaults),
			PrepareCreate: kinds.Each(prepareCreate),
			PrepareUpdate: kinds.Pair(prepareUpdate),
			// The name is the definition's own rule: validate has it.
			ValidateName:              func(string, bool) []string { return nil },
			Validate:                  kinds.Check(validate),
			ValidateUpdate:            kinds.CheckUpdate(validateUpdate),
			Warnings:                  kinds.Warn(warnings),
			ForbidUnconditionalUpdate: true,
			Generation:                true,
			Deleting:                  kinds.Each(deleting),
			DatedOnly:                 true,
			// Whoever is deleted for the first time gets a finalizer: its objects
			// go before it.
			Holds: func(obj kinds.Object) bool { return obj.GetDeletionTimestamp() == nil },
		},
		Table: kinds.Table{Columns: columns(), Row: kinds.Row(row)},
		Subresources: []kinds.Subresource{
			kinds.StatusRules(func(next, body *definition) { next.Status = body.Status }, validateStatus),
		},
	}
}

// setDefaults also forgets a webhook of which nothing is said.
func setDefaults(d *definition) {
	apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(d)
	if c := d.Spec.Conversion; c != nil && c.Webhook != nil && c.Webhook.ClientConfig == nil && c.Webhook.ConversionReviewVersions == nil {
		c.Webhook = nil
	}
}

func prepareCreate(d *definition) {
	d.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	kinds.FirstGeneration(d)
	store(d)
}

func prepareUpdate(d, old *definition) {
	old.Status.DeepCopyInto(&d.Status)
	kinds.NextGeneration(d, old, !kinds.Same(d.Spec, old.Spec))
	store(d)
}

// store remembers in which versions objects may lie in the store: there is one at a
// time, and validation refuses others.
func store(d *definition) {
	i := slices.IndexFunc(d.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Storage })
	if i >= 0 && !slices.Contains(d.Status.StoredVersions, d.Spec.Versions[i].Name) {
		d.Status.StoredVersions = append(d.Status.StoredVersions, d.Spec.Versions[i].Name)
	}
}

// deleting makes the definition wait for its objects' end.
func deleting(d *definition) {
	if !slices.Contains(d.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		d.Finalizers = append(d.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	pending := apiextensionsv1.CustomResourceDefinitionCondition{
		Type:    apiextensionsv1.Terminating,
		Status:  apiextensionsv1.ConditionTrue,
		Reason:  "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	}
	if d.DeletionTimestamp != nil {
		pending.LastTransitionTime = *d.DeletionTimestamp
	}
	SetCondition(d, pending)
}

// SetCondition puts a condition in, or in its type's place. The time of the last
// transition is kept when the status does not change; the caller sets the new one.
func SetCondition(d *apiextensionsv1.CustomResourceDefinition, c apiextensionsv1.CustomResourceDefinitionCondition) {
	for i := range d.Status.Conditions {
		have := &d.Status.Conditions[i]
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		*have = c
		return
	}
	d.Status.Conditions = append(d.Status.Conditions, c)
}

// Condition finds a condition; nil when there is none of the type.
func Condition(d *apiextensionsv1.CustomResourceDefinition, t apiextensionsv1.CustomResourceDefinitionConditionType) *apiextensionsv1.CustomResourceDefinitionCondition {
	for i := range d.Status.Conditions {
		if d.Status.Conditions[i].Type == t {
			return &d.Status.Conditions[i]
		}
	}
	return nil
}

// True says that a condition is there and true.
func True(d *apiextensionsv1.CustomResourceDefinition, t apiextensionsv1.CustomResourceDefinitionConditionType) bool {
	c := Condition(d, t)
	return c != nil && c.Status == apiextensionsv1.ConditionTrue
}

func columns() []metav1.TableColumnDefinition {
	docs := metav1.ObjectMeta{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: docs["name"]},
		{Name: "Scope", Type: "string", Description: "Cluster/Namespaced"},
		{Name: "Versions", Type: "string", Description: "Served versions"},
		{Name: "Created At", Type: "date", Description: docs["creationTimestamp"]},
		{Name: "Group", Type: "string", Priority: 1, Description: "API group"},
		{Name: "Kind", Type: "string", Priority: 1, Description: "CustomResource kind"},
		{Name: "ShortNames", Type: "string", Priority: 1, Description: "Short names"},
		{Name: "Established", Type: "boolean", Priority: 1, Description: "Established status"},
	}
}

func row(d *definition, _ time.Time) []any {
	var served []string
	for _, v := range d.Spec.Versions {
		switch {
		case v.Served && v.Storage:
			served = append(served, v.Name+"(storage)")
		case v.Served:
			served = append(served, v.Name)
		}
	}
	slices.Sort(served)
	return []any{d.Name, string(d.Spec.Scope), strings.Join(served, ","), d.CreationTimestamp.UTC().Format(time.RFC3339),
		d.Spec.Group, d.Spec.Names.Kind, strings.Join(d.Spec.Names.ShortNames, ","), True(d, apiextensionsv1.Established)}
}
