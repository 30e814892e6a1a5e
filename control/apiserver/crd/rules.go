package crd

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apimachineryvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/warning"

	"github.com/sampan-dev/sampan/kinds"
)

// setDefaults prunes and defaults: also what admission has added.
func (v *version) setDefaults(obj kinds.Object) {
	tree := content(obj)
	if !v.family.preserves() {
		pruning.PruneWithOptions(tree, v.schema, true, structural.UnknownFieldPathOptions{})
		defaulting.PruneNonNullableNullsWithoutDefaults(tree, v.schema)
	}
	defaulting.Default(tree, v.schema)
}

func (v *version) prepareCreate(obj kinds.Object) {
	if v.hasStatus() {
		delete(content(obj), "status")
	}
	kinds.FirstGeneration(obj)
}

func (v *version) prepareUpdate(obj, old kinds.Object) {
	next, before := content(obj), content(old)
	if v.hasStatus() {
		if status, ok := before["status"]; ok {
			next["status"] = status
		} else {
			delete(next, "status")
		}
	}
	kinds.NextGeneration(obj, old, !kinds.Same(besidesMetadata(next), besidesMetadata(before)))
}

func besidesMetadata(tree map[string]any) map[string]any {
	out := maps.Clone(tree)
	delete(out, "metadata")
	return out
}

func (v *version) validate(obj kinds.Object) field.ErrorList {
	checks, err := v.checks()
	if err != nil {
		return broken(err)
	}
	tree := content(obj)
	errs := validation.ValidateCustomResource(nil, tree, checks.object)
	errs = append(errs, v.checkScale(tree, true)...)
	errs = append(errs, objectmeta.Validate(context.Background(), nil, tree, v.schema, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, v.schema, tree)...)
	return v.checkRules(checks, errs, tree, nil)
}

// validateUpdate lets pass what was wrong before and has not changed.
func (v *version) validateUpdate(obj, old kinds.Object) field.ErrorList {
	checks, err := v.checks()
	if err != nil {
		return broken(err)
	}
	tree, before := content(obj), content(old)
	pair := v.correlate(tree, before)
	errs := validation.ValidateCustomResourceUpdate(nil, tree, before, checks.object, validation.WithRatcheting(pair))
	errs = append(errs, v.checkScale(tree, true)...)
	errs = append(errs, objectmeta.Validate(context.Background(), nil, tree, v.schema, false)...)
	errs = append(errs, v.checkLists(tree, before)...)
	return v.checkRules(checks, errs, tree, before, cel.WithRatcheting(pair))
}

func (v *version) validateStatus(obj, old kinds.Object) field.ErrorList {
	checks, err := v.checks()
	if err != nil {
		return broken(err)
	}
	tree, before := content(obj), content(old)
	pair := v.correlate(tree, before)
	var errs field.ErrorList
	if status, ok := tree["status"]; ok && checks.status != nil {
		var options []validation.ValidationOption
		if v.schema != nil {
			options = append(options, validation.WithRatcheting(pair.Key("status")))
		}
		errs = validation.ValidateCustomResourceUpdate(field.NewPath("status"), status, before["status"], checks.status, options...)
	}
	errs = append(errs, v.checkScale(tree, false)...)
	errs = append(errs, v.checkLists(tree, before)...)
	return v.checkRules(checks, errs, tree, before, cel.WithRatcheting(pair))
}

// correlate lays the two states of an object side by side.
func (v *version) correlate(tree, before map[string]any) *common.CorrelatedObject {
	return common.NewCorrelatedObject(tree, before, &model.Structural{Structural: v.schema})
}

// checkLists refuses duplicates in sets and maps, unless there were some before.
func (v *version) checkLists(tree, before map[string]any) field.ErrorList {
	errs := listtype.ValidateListSetsAndMaps(nil, v.schema, tree)
	if len(errs) == 0 || len(listtype.ValidateListSetsAndMaps(nil, v.schema, before)) > 0 {
		return nil
	}
	return errs
}

// unchecked says that there was no point in asking the rules.
const unchecked = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"

// checkRules asks the CEL rules of the schema, unless what they would look at is
// of the wrong shape. before is nil on create.
func (v *version) checkRules(c *checks, errs field.ErrorList, tree, before map[string]any, options ...cel.Option) field.ErrorList {
	if c.rules == nil {
		return errs
	}
	if slices.ContainsFunc(errs, misshapen) {
		return append(errs, field.Invalid(nil, nil, unchecked))
	}
	var old any
	if before != nil {
		old = before
	}
	var let ratcheted
	found, _ := c.rules.Validate(warning.WithWarningRecorder(context.Background(), &let), nil, v.schema, tree, old, celconfig.RuntimeCELCostBudget, options...)
	errs = append(errs, found...)
	for _, text := range let {
		errs = append(errs, kinds.Aside(text))
	}
	return errs
}

// ratcheted is what the rules say of what they let pass because it was there before.
type ratcheted []string

// AddWarning takes down a warning.
func (r *ratcheted) AddWarning(_, text string) { *r = append(*r, text) }

func misshapen(e *field.Error) bool {
	switch e.Type {
	case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	}
	return false
}

// checkScale looks at the fields that the scale subresource stands on: those of
// the status always, the wanted replicas only where they may change.
func (v *version) checkScale(tree map[string]any, spec bool) field.ErrorList {
	s := v.scale()
	if s == nil {
		return nil
	}
	var errs field.ErrorList
	if spec {
		errs = append(errs, checkReplicas(tree, s.SpecReplicasPath)...)
	}
	errs = append(errs, checkReplicas(tree, s.StatusReplicasPath)...)
	if s.LabelSelectorPath != nil {
		selector, _, err := unstructured.NestedString(tree, steps(*s.LabelSelectorPath)...)
		if err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*s.LabelSelectorPath), selector, err.Error()))
		}
	}
	return errs
}

func checkReplicas(tree map[string]any, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(tree, steps(path)...)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, err.Error())}
	case n < 0:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, "should be a non-negative integer")}
	case n > math.MaxInt32:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32))}
	}
	return nil
}

// steps are the parts of a simple JSON path: ".spec.replicas".
func steps(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

// finalizerWarnings are about the names of new finalizers that may clash.
func finalizerWarnings(obj, old kinds.Object) []string {
	var before, out []string
	if old != nil {
		before = old.GetFinalizers()
	}
	const at = "metadata.finalizers"
	added := slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool { return slices.Contains(before, f) })
	slices.Sort(added)
	for _, f := range slices.Compact(added) {
		for _, message := range apimachineryvalidation.IsQualifiedName(f) {
			out = append(out, fmt.Sprintf("%s: %q: %s", at, f, message))
		}
		switch {
		case strings.Contains(f, "/"), f == metav1.FinalizerOrphanDependents, f == metav1.FinalizerDeleteDependents, f == string(corev1.FinalizerKubernetes):
		case strings.Contains(f, "."):
			out = append(out, fmt.Sprintf("%s: %q: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers", at, f))
		default:
			out = append(out, fmt.Sprintf("%s: %q: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers", at, f))
		}
	}
	return out
}
