package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validateLimitRange(l *corev1.LimitRange) field.ErrorList {
	var f kinds.Faults
	seen := sets.New[corev1.LimitType]()
	for i := range l.Spec.Limits {
		item, at := &l.Spec.Limits[i], kinds.NewPath("spec").Child("limits").Index(i)
		checkLimitType(&f, item.Type, at.Child("type"))
		if seen.Has(item.Type) {
			f.Duplicate(at.Child("type"), item.Type)
		}
		seen.Insert(item.Type)
		checkLimitItem(&f, item, at)
	}
	return f.List()
}

func checkLimitType(f *kinds.Faults, kind corev1.LimitType, at *kinds.Path) {
	messages := validation.IsQualifiedName(string(kind))
	f.Each(at, kind, messages)
	if len(messages) > 0 || strings.Contains(string(kind), "/") {
		return
	}
	switch kind {
	case corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim:
	default:
		f.Invalid(at, kind, "must be a standard limit type or fully qualified")
	}
}

func checkLimitItem(f *kinds.Faults, item *corev1.LimitRangeItem, at *kinds.Path) {
	name := standardResourceName
	if item.Type == corev1.LimitTypePod || item.Type == corev1.LimitTypeContainer {
		name = containerResourceName
	}
	names := sets.New[corev1.ResourceName]()
	for _, list := range []struct {
		field string
		list  corev1.ResourceList
		noPod bool
	}{
		{"max", item.Max, false}, {"min", item.Min, false}, {"default", item.Default, true},
		{"defaultRequest", item.DefaultRequest, true}, {"maxLimitRequestRatio", item.MaxLimitRequestRatio, false},
	} {
		if list.noPod && item.Type == corev1.LimitTypePod {
			if len(list.list) > 0 {
				f.Forbidden(at.Child(list.field), "may not be specified when `type` is 'Pod'")
			}
			continue
		}
		for resource := range list.list {
			f.Join(name(resource, at.Child(list.field).Key(string(resource))))
			names.Insert(resource)
		}
	}
	if item.Type == corev1.LimitTypePersistentVolumeClaim {
		_, least := item.Min[corev1.ResourceStorage]
		_, most := item.Max[corev1.ResourceStorage]
		if !least && !most {
			f.Required(at.Child("limits"), "either minimum or maximum storage value is required, but neither was provided")
		}
	}
	for _, name := range sets.List(names) {
		checkLimitOrder(f, item, name, at)
	}
}

// checkLimitOrder: min <= default request <= default <= max, as far as given.
func checkLimitOrder(f *kinds.Faults, item *corev1.LimitRangeItem, name corev1.ResourceName, at *kinds.Path) {
	least, hasMin := item.Min[name]
	most, hasMax := item.Max[name]
	limit, hasLimit := item.Default[name]
	request, hasRequest := item.DefaultRequest[name]
	for _, rule := range []struct {
		applies   bool
		low, high resource.Quantity
		field     string
		value     resource.Quantity
		text      string
	}{
		{hasMin && hasMax, least, most, "min", least, "min value %s is greater than max value %s"},
		{hasMin && hasRequest, least, request, "defaultRequest", request, "min value %s is greater than default request value %s"},
		{hasRequest && hasMax, request, most, "defaultRequest", request, "default request value %s is greater than max value %s"},
		{hasRequest && hasLimit, request, limit, "defaultRequest", request, "default request value %s is greater than default limit value %s"},
		{hasMin && hasLimit, least, limit, "default", least, "min value %s is greater than default value %s"},
		{hasLimit && hasMax, limit, most, "default", most, "default value %s is greater than max value %s"},
	} {
		if rule.applies && rule.low.Cmp(rule.high) > 0 {
			f.Invalid(at.Child(rule.field).Key(string(name)), rule.value, fmt.Sprintf(rule.text, rule.low.String(), rule.high.String()))
		}
	}
	if ratio, ok := item.MaxLimitRequestRatio[name]; ok {
		here := at.Child("maxLimitRequestRatio").Key(string(name))
		if ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
			f.Invalid(here, ratio, fmt.Sprintf("ratio %s is less than 1", ratio.String()))
		}
		if hasMin && hasMax {
			if asked, possible := ratios(ratio, most, least); asked > possible {
				f.Invalid(here, ratio, fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), possible))
			}
		}
	}
	if !mayOvercommit(name) && hasLimit && hasRequest && limit.Cmp(request) != 0 {
		f.Invalid(at.Child("defaultRequest").Key(string(name)), request,
			fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", limit.String(), request.String(), name))
	}
}

// ratios are compared in thousandths, unless one of the numbers is too large for that.
func ratios(ratio, most, least resource.Quantity) (asked, possible float64) {
	fine := true
	for _, q := range []resource.Quantity{ratio, most, least} {
		fine = fine && q.Value() < resource.MaxMilliValue
	}
	if fine {
		return float64(ratio.MilliValue()) / 1000, float64(most.MilliValue()) / float64(least.MilliValue())
	}
	return float64(ratio.Value()), float64(most.Value()) / float64(least.Value())
}
