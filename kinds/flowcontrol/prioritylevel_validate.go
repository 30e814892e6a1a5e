package flowcontrol

import (
	"fmt"
	"math"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	flowcontrolv1beta3 "k8s.io/api/flowcontrol/v1beta3"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// Limits of a level's queues.
const (
	maxQueues = 10_000_000
	// maxEntropy is how many bits of a flow's hash there are to deal a hand with.
	maxEntropy = 60
)

func validateLevel(l *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	return levelRules(l, nil).Behind(checkLevel(l))
}

// levelRules are upstream's declared rules: which parts a type has.
func levelRules(l, old *flowcontrolv1.PriorityLevelConfiguration) *declared.Rules {
	r, spec, at := declared.For(old), &l.Spec, kinds.NewPath("spec")
	was := &flowcontrolv1.PriorityLevelConfigurationSpec{}
	if old != nil {
		was = &old.Spec
		if kinds.Same(l.Spec, old.Spec) {
			return r
		}
	}
	again := old == nil || spec.Type != was.Type
	isExempt, isLimited := spec.Type == flowcontrolv1.PriorityLevelEnablementExempt, spec.Type == flowcontrolv1.PriorityLevelEnablementLimited
	if again || !kinds.Same(spec.Exempt, was.Exempt) {
		declared.Unless(r, at.Child("exempt"), spec.Exempt, false, isExempt)
	}
	if again || !kinds.Same(spec.Limited, was.Limited) {
		declared.Unless(r, at.Child("limited"), spec.Limited, isLimited, isLimited)
	}
	if again {
		r.NonEmpty(at.Child("type"), string(spec.Type))
	}
	declared.Pointer(r, spec, was, at.Child("limited"), func(s *flowcontrolv1.PriorityLevelConfigurationSpec) *flowcontrolv1.LimitedPriorityLevelConfiguration {
		return s.Limited
	},
		func(now, old *flowcontrolv1.LimitedPriorityLevelConfiguration, at *kinds.Path) {
			responseRules(r, now, old, at.Child("limitResponse"))
		})
	return r
}

func responseRules(r *declared.Rules, now, old *flowcontrolv1.LimitedPriorityLevelConfiguration, at *kinds.Path) {
	response := now.LimitResponse
	if old != nil && kinds.Same(response, old.LimitResponse) {
		return
	}
	queues := response.Type == flowcontrolv1.LimitResponseTypeQueue
	declared.Unless(r, at.Child("queuing"), response.Queuing, queues, queues)
	if old == nil || response.Type != old.LimitResponse.Type {
		r.NonEmpty(at.Child("type"), string(response.Type))
	}
}

func checkLevel(l *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	var f kinds.Faults
	if _, there := l.Annotations[flowcontrolv1beta3.PriorityLevelPreserveZeroConcurrencySharesKey]; there {
		f.Forbidden(kinds.NewPath("metadata").Child("annotations"),
			fmt.Sprintf("annotation '%s' is forbidden", flowcontrolv1beta3.PriorityLevelPreserveZeroConcurrencySharesKey))
	}
	spec := kinds.NewPath("spec")
	isExempt := l.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt
	if isExempt != (l.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt) {
		f.Invalid(spec.Child("type"), l.Spec.Type, "must be 'Exempt' if and only if `name` is 'exempt'")
	}
	switch l.Spec.Type {
	case flowcontrolv1.PriorityLevelEnablementExempt:
		if l.Spec.Limited != nil {
			f.Forbidden(spec.Child("limited"), "must be nil if the type is not Limited")
		}
		if e := l.Spec.Exempt; e != nil {
			checkShares(&f, e.NominalConcurrencyShares, e.LendablePercent, spec.Child("exempt"))
		}
	case flowcontrolv1.PriorityLevelEnablementLimited:
		if l.Spec.Exempt != nil {
			f.Forbidden(spec.Child("exempt"), "must be nil if the type is Limited")
		}
		if l.Spec.Limited == nil {
			f.Required(spec.Child("limited"), "must not be empty when type is Limited")
		} else {
			checkLimited(&f, l.Spec.Limited, spec.Child("limited"))
		}
	default:
		kinds.RequiredOneOf(&f, spec.Child("type"), l.Spec.Type,
			flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited)
	}
	checkFixed(&f, l, spec)
	f.Join(validateLevelStatus(l, nil))
	return f.List()
}

func validateLevelUpdate(l, old *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	return levelRules(l, old).Behind(checkLevel(l))
}

func validateLevelStatus(l, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	return checkConditions(l.Status.Conditions,
		func(c flowcontrolv1.PriorityLevelConfigurationCondition) string { return string(c.Type) })
}

// checkFixed keeps the mandatory levels as they are.
func checkFixed(f *kinds.Faults, l *flowcontrolv1.PriorityLevelConfiguration, at *kinds.Path) {
	for _, fixed := range Mandatory().Levels {
		switch {
		case fixed.Name != l.Name:
		case l.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt:
			have := l.Spec.DeepCopy()
			have.Exempt = fixed.Spec.Exempt
			if !kinds.Same(fixed.Spec, *have) {
				f.Invalid(at, l.Spec, fmt.Sprintf("spec of '%s' except the 'spec.exempt' field must equal the fixed value", l.Name))
			}
		case !kinds.Same(fixed.Spec, l.Spec):
			f.Invalid(at, l.Spec, fmt.Sprintf("spec of '%s' must equal the fixed value", l.Name))
		}
	}
}

func checkShares(f *kinds.Faults, shares, lendable *int32, at *kinds.Path) {
	if shares != nil && *shares < 0 {
		f.Invalid(at.Child("nominalConcurrencyShares"), *shares, "must be a non-negative integer")
	}
	if lendable != nil && (*lendable < 0 || *lendable > 100) {
		f.Invalid(at.Child("lendablePercent"), *lendable, "must be between 0 and 100, inclusive")
	}
}

func checkLimited(f *kinds.Faults, l *flowcontrolv1.LimitedPriorityLevelConfiguration, at *kinds.Path) {
	checkShares(f, l.NominalConcurrencyShares, nil, at)
	response := at.Child("limitResponse")
	switch l.LimitResponse.Type {
	case flowcontrolv1.LimitResponseTypeReject:
		if l.LimitResponse.Queuing != nil {
			f.Forbidden(response.Child("queuing"), "must be nil if limited.limitResponse.type is not Limited")
		}
	case flowcontrolv1.LimitResponseTypeQueue:
		if l.LimitResponse.Queuing == nil {
			f.Required(response.Child("queuing"), "must not be empty if limited.limitResponse.type is Limited")
		} else {
			checkQueuing(f, l.LimitResponse.Queuing, response.Child("queuing"))
		}
	default:
		kinds.RequiredOneOf(f, response.Child("type"), l.LimitResponse.Type,
			flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject)
	}
	checkShares(f, nil, l.LendablePercent, at)
	if b := l.BorrowingLimitPercent; b != nil && *b < 0 {
		f.Invalid(at.Child("borrowingLimitPercent"), *b, "if specified, must be a non-negative integer")
	}
}

func checkQueuing(f *kinds.Faults, q *flowcontrolv1.QueuingConfiguration, at *kinds.Path) {
	if q.QueueLengthLimit <= 0 {
		f.Invalid(at.Child("queueLengthLimit"), q.QueueLengthLimit, "must be positive")
	}
	switch {
	case q.Queues <= 0:
		f.Invalid(at.Child("queues"), q.Queues, "must be positive")
	case q.Queues > maxQueues:
		f.Invalid(at.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues))
	}
	bits := entropy(q.Queues, q.HandSize)
	switch {
	case q.HandSize <= 0:
		f.Invalid(at.Child("handSize"), q.HandSize, "must be positive")
	case q.HandSize > q.Queues:
		f.Invalid(at.Child("handSize"), q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues))
	case bits > maxEntropy:
		f.Invalid(at.Child("handSize"), q.HandSize,
			fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, maxEntropy))
	}
}

// entropy is how many bits it takes to choose a hand of queues, as upstream
// counts them.
func entropy(queues, hand int32) int {
	return int(math.Ceil(math.Log2(float64(queues)) * float64(hand)))
}
