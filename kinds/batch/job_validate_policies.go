package batch

import (
	"fmt"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// The limits of failure and success policies.
const (
	maxPolicyRules = 20
	maxExitCodes   = 255
	maxConditions  = 20
	maxIndexesText = 64 << 10
)

// indexedOnly is said of what only jobs can have whose pods have indices.
const indexedOnly = "requires indexed completion mode"

func checkPolicies(f *kinds.Faults, spec *batchv1.JobSpec, at *kinds.Path) {
	if p := spec.PodFailurePolicy; p != nil {
		rules := at.Child("podFailurePolicy").Child("rules")
		if len(p.Rules) > maxPolicyRules {
			f.TooMany(rules, len(p.Rules), maxPolicyRules)
		}
		for i := range p.Rules {
			checkFailureRule(f, spec, &p.Rules[i], rules.Index(i))
		}
	}
	if p := spec.SuccessPolicy; p != nil && !indexed(spec) {
		f.Invalid(at.Child("successPolicy"), *p, indexedOnly)
	} else if p != nil {
		rules := at.Child("successPolicy").Child("rules")
		if len(p.Rules) == 0 {
			f.Required(rules, "at least one rules must be specified when the successPolicy is specified")
		}
		if len(p.Rules) > maxPolicyRules {
			f.TooMany(rules, len(p.Rules), maxPolicyRules)
		}
		for i := range p.Rules {
			checkSuccessRule(f, kinds.Deref(spec.Completions), &p.Rules[i], rules.Index(i))
		}
	}
	if spec.PodReplacementPolicy == nil {
		return
	}
	allowed := []batchv1.PodReplacementPolicy{batchv1.Failed}
	if spec.PodFailurePolicy == nil {
		allowed = append(allowed, batchv1.TerminatingOrFailed)
	}
	kinds.OneOf(f, at.Child("podReplacementPolicy"), *spec.PodReplacementPolicy, allowed...)
}

func checkFailureRule(f *kinds.Faults, spec *batchv1.JobSpec, r *batchv1.PodFailurePolicyRule, at *kinds.Path) {
	action := at.Child("action")
	switch r.Action {
	case "":
		f.Required(action, `valid values: ["Count" "FailIndex" "FailJob" "Ignore"]`)
	case batchv1.PodFailurePolicyActionFailIndex:
		if spec.BackoffLimitPerIndex == nil {
			f.Invalid(action, r.Action, "requires the backoffLimitPerIndex to be set")
		}
	default:
		kinds.OneOf(f, action, r.Action, batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex,
			batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)
	}
	if r.OnExitCodes != nil {
		checkExitCodes(f, spec, r.OnExitCodes, at.Child("onExitCodes"))
	}
	checkConditions(f, r.OnPodConditions, at.Child("onPodConditions"))
	switch {
	case r.OnExitCodes != nil && len(r.OnPodConditions) > 0:
		f.Invalid(at, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported")
	case r.OnExitCodes == nil && len(r.OnPodConditions) == 0:
		f.Invalid(at, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required")
	}
}

func checkConditions(f *kinds.Faults, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern, at *kinds.Path) {
	if len(patterns) > maxConditions {
		f.TooMany(at, len(patterns), maxConditions)
	}
	for i, p := range patterns {
		here := at.Index(i)
		f.Each(here.Child("type"), string(p.Type), validation.IsQualifiedName(string(p.Type)))
		if p.Status == "" {
			f.Required(here.Child("status"), `valid values: ["False" "True" "Unknown"]`)
			continue
		}
		kinds.OneOf(f, here.Child("status"), p.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)
	}
}

func checkExitCodes(f *kinds.Faults, spec *batchv1.JobSpec, r *batchv1.PodFailurePolicyOnExitCodesRequirement, at *kinds.Path) {
	if r.Operator == "" {
		f.Required(at.Child("operator"), `valid values: ["In" "NotIn"]`)
	} else {
		kinds.OneOf(f, at.Child("operator"), r.Operator, batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
	}
	names := sets.New[string]()
	for _, containers := range [][]corev1.Container{spec.Template.Spec.Containers, spec.Template.Spec.InitContainers} {
		for i := range containers {
			names.Insert(containers[i].Name)
		}
	}
	if r.ContainerName != nil && !names.Has(*r.ContainerName) {
		f.Invalid(at.Child("containerName"), *r.ContainerName, "must be one of the container or initContainer names in the pod template")
	}
	values := at.Child("values")
	switch {
	case len(r.Values) == 0:
		f.Invalid(values, r.Values, "at least one value is required")
	case len(r.Values) > maxExitCodes:
		f.TooMany(values, len(r.Values), maxExitCodes)
	}
	seen, ordered := sets.New[int32](), true
	for i, code := range r.Values {
		if r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && code == 0 {
			f.Invalid(values.Index(i), code, "must not be 0 for the In operator")
		}
		if seen.Has(code) {
			f.Duplicate(values.Index(i), code)
		}
		seen.Insert(code)
		ordered = ordered && (i == 0 || r.Values[i-1] <= code)
	}
	if !ordered {
		f.Invalid(values, r.Values, "must be ordered")
	}
}

func checkSuccessRule(f *kinds.Faults, completions int32, r *batchv1.SuccessPolicyRule, at *kinds.Path) {
	if r.SucceededCount == nil && r.SucceededIndexes == nil {
		f.Required(at, "at least one of succeededCount or succeededIndexes must be specified")
	}
	total := int32(0)
	if text := r.SucceededIndexes; text != nil {
		here := at.Child("succeededIndexes")
		if len(*text) > maxIndexesText {
			f.TooLong(here, maxIndexesText)
		}
		list, err := ParseIndexes(*text, completions)
		if err != nil {
			f.Invalid(here, *text, fmt.Sprintf("error parsing succeededIndexes: %s", err))
		}
		for _, span := range list {
			total += span.Last - span.First + 1
		}
	}
	if count := r.SucceededCount; count != nil {
		here := at.Child("succeededCount")
		f.NonNegative(here, int64(*count))
		if *count > completions {
			f.Invalid(here, *count, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions))
		}
		if r.SucceededIndexes != nil && *count > total {
			f.Invalid(here, *count, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total))
		}
	}
}

// Span is a run of indexes, both ends included.
type Span struct{ First, Last int32 }

// ParseIndexes reads the form in which jobs list indexes, "1,3-5,7": increasing,
// below completions. The empty text is the empty list.
func ParseIndexes(text string, completions int32) ([]Span, error) {
	if text == "" {
		return nil, nil
	}
	var spans []Span
	previous := int32(-1)
	for _, part := range strings.Split(text, ",") {
		ends := strings.Split(part, "-")
		if len(ends) > 2 {
			return nil, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", part)
		}
		var numbers [2]int32
		for i, end := range ends {
			n, err := strconv.Atoi(end)
			if err != nil {
				return nil, fmt.Errorf("cannot convert string to integer for index: %q", end)
			}
			if n >= int(completions) {
				return nil, fmt.Errorf("too large index: %q", end)
			}
			numbers[i] = int32(n)
		}
		span := Span{numbers[0], numbers[len(ends)-1]}
		if len(ends) == 2 && span.First >= span.Last {
			return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", span.First, span.Last)
		}
		if previous >= span.First {
			return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", previous, span.First)
		}
		previous = span.Last
		spans = append(spans, span)
	}
	return spans, nil
}
