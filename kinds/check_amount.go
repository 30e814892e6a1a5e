package kinds

import (
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Amount checks a number or percentage that may be nil: neither is below zero.
func (f *Faults) Amount(at *Path, v *intstr.IntOrString) {
	switch {
	case v == nil:
	case v.Type == intstr.String:
		f.Each(at, *v, validation.IsValidPercent(v.StrVal))
	default:
		f.NonNegative(at, int64(v.IntValue()))
	}
}

// AtMostAll refuses percentages above a hundred.
func (f *Faults) AtMostAll(at *Path, v *intstr.IntOrString) {
	if v == nil || v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return
	}
	if AmountValue(v) > 100 {
		f.Invalid(at, *v, "must not be greater than 100%")
	}
}

// AmountValue is the number itself, of a percentage too; 0 of nil and nonsense.
func AmountValue(v *intstr.IntOrString) int {
	if v == nil {
		return 0
	}
	if v.Type == intstr.Int {
		return v.IntValue()
	}
	text, percent := strings.CutSuffix(v.StrVal, "%")
	n, err := strconv.Atoi(text)
	if err != nil || percent && strings.ContainsAny(text, "+-") {
		return 0
	}
	return n
}

// Count is one number of a status and the name of its field.
type Count struct {
	Field string
	Value int32
}

// Within checks counts that cannot be larger than total, which has a name.
func (f *Faults) Within(at *Path, total int32, name string, counts ...Count) {
	for _, c := range counts {
		f.NonNegative(at.Child(c.Field), int64(c.Value))
		if c.Value > total {
			f.Invalid(at.Child(c.Field), c.Value, "cannot be greater than "+name)
		}
	}
}

// NeverLess refuses a counter that went back.
func (f *Faults) NeverLess(at *Path, now, was *int32) {
	if now != nil {
		f.NonNegative(at, int64(*now))
	}
	if was != nil && Deref(now) < *was {
		f.Invalid(at, Deref(now), "cannot be decremented")
	}
}
