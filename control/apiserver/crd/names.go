package crd

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/util/webhook"

	definition "github.com/sampan-dev/sampan/kinds/apiextensions"
)

// taken are the names that the definitions of one group have been given.
type taken struct{ resources, kinds map[string]bool }

// takenIn gathers them; a definition's own are among them.
func takenIn(group string, all map[string]*apiextensionsv1.CustomResourceDefinition) taken {
	t := taken{resources: map[string]bool{}, kinds: map[string]bool{}}
	for _, d := range all {
		if d.Spec.Group != group {
			continue
		}
		names := d.Status.AcceptedNames
		t.resources[names.Plural], t.resources[names.Singular] = true, true
		for _, s := range names.ShortNames {
			t.resources[s] = true
		}
		t.kinds[names.Kind], t.kinds[names.ListKind] = true, true
	}
	return t
}

// accept decides which of the wanted names a definition gets, and what its
// conditions say of it. Whatever clashes stays as it was; the last clash is told.
func accept(d *apiextensionsv1.CustomResourceDefinition, t taken) (apiextensionsv1.CustomResourceDefinitionNames, []apiextensionsv1.CustomResourceDefinitionCondition) {
	want, have := d.Spec.Names, d.Status.AcceptedNames
	got := have
	said := apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.NamesAccepted,
		Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found"}
	clash := func(reason string, err error) {
		said.Status, said.Reason, said.Message = apiextensionsv1.ConditionFalse, reason, err.Error()
	}
	claim := func(reason, wanted, had string, used map[string]bool, into *string) {
		if wanted != had && used[wanted] {
			clash(reason, inUse(wanted))
			return
		}
		*into = wanted
	}
	claim("PluralConflict", want.Plural, have.Plural, t.resources, &got.Plural)
	claim("SingularConflict", want.Singular, have.Singular, t.resources, &got.Singular)
	if err := claimShort(want.ShortNames, have.ShortNames, t.resources); err != nil {
		clash("ShortNamesConflict", err)
	} else {
		got.ShortNames = want.ShortNames
	}
	claim("KindConflict", want.Kind, have.Kind, t.kinds, &got.Kind)
	claim("ListKindConflict", want.ListKind, have.ListKind, t.kinds, &got.ListKind)
	got.Categories = want.Categories

	established := apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.Established,
		Status: apiextensionsv1.ConditionFalse, Reason: "NotAccepted", Message: "not all names are accepted"}
	if old := definition.Condition(d, apiextensionsv1.Established); old != nil {
		established = *old
	}
	if established.Status != apiextensionsv1.ConditionTrue && said.Status == apiextensionsv1.ConditionTrue {
		established.Status, established.Reason, established.Message = apiextensionsv1.ConditionFalse, "Installing", initial
	}
	return got, []apiextensionsv1.CustomResourceDefinitionCondition{said, established}
}

const initial = "the initial names have been accepted"

func inUse(name string) error { return fmt.Errorf("%q is already in use", name) }

func claimShort(want, have []string, used map[string]bool) error {
	if reflect.DeepEqual(want, have) {
		return nil
	}
	var errs []error
	for _, s := range want {
		if !slices.Contains(have, s) && used[s] {
			errs = append(errs, inUse(s))
		}
	}
	return utilerrors.NewAggregate(errs)
}

// establish is the condition of a definition whose rows are in place.
func establish(d *apiextensionsv1.CustomResourceDefinition) apiextensionsv1.CustomResourceDefinitionCondition {
	c := apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.Established,
		Status: apiextensionsv1.ConditionTrue, Reason: "InitialNamesAccepted", Message: initial}
	if badBundle(d) {
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionFalse, "InvalidCABundle", "The conversion webhook CABundle is invalid"
	}
	return c
}

// structuralState says what keeps a definition's schemas from being structural;
// nil for nothing: the condition then is not there.
func structuralState(d *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	c := &apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionUnknown}
	var errs field.ErrorList
	if d.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	for i, v := range d.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		in := &apiextensions.CustomResourceValidation{}
		if apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema.DeepCopy(), in, nil) != nil {
			continue
		}
		s, err := structural.NewStructural(in.OpenAPIV3Schema)
		if err != nil {
			c.Reason, c.Message = "StructuralError", fmt.Sprintf("failed to check validation schema for version %s: %v", v.Name, err)
			return c
		}
		at := field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema")
		errs = append(errs, structural.ValidateStructural(at, s)...)
	}
	if len(errs) == 0 {
		return nil
	}
	c.Status, c.Reason, c.Message = apiextensionsv1.ConditionTrue, "Violations", errs.ToAggregate().Error()
	return c
}

// approvalState says whether a definition in one of Kubernetes' own groups is
// approved; nil for other groups.
func approvalState(d *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionCondition {
	group := "." + d.Spec.Group
	if !strings.HasSuffix(group, ".k8s.io") && !strings.HasSuffix(group, ".kubernetes.io") {
		return nil
	}
	const key = apiextensionsv1.KubeAPIApprovedAnnotation
	const see = "see https://github.com/kubernetes/enhancements/pull/1111"
	said := d.Annotations[key]
	c := &apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse}
	at, err := url.ParseRequestURI(said)
	switch {
	case said == "":
		c.Reason, c.Message = "MissingAnnotation", fmt.Sprintf("protected groups must have approval annotation %q, %s", key, see)
	case strings.HasPrefix(said, "unapproved"):
		c.Reason, c.Message = "UnapprovedAnnotation", fmt.Sprintf("not approved: %q", said)
	case err == nil && at.Host != "" && at.Scheme != "":
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionTrue, "ApprovedAnnotation", fmt.Sprintf("approved in %v", said)
	default:
		c.Reason, c.Message = "InvalidAnnotation", fmt.Sprintf("protected groups must have approval annotation %q with either a URL or a reason starting with \"unapproved\", %s", key, see)
	}
	return c
}

// badBundle says that the roots of a definition's conversion webhook are no
// certificates.
func badBundle(d *apiextensionsv1.CustomResourceDefinition) bool {
	c := d.Spec.Conversion
	if c == nil || c.Webhook == nil || c.Webhook.ClientConfig == nil {
		return false
	}
	return len(webhook.ValidateCABundle(field.NewPath(""), c.Webhook.ClientConfig.CABundle)) > 0
}
