package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// LimitRange is the kind that bounds and defaults the resources of a namespace's
// pods, containers and claims.
func LimitRange() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("LimitRange"),
		Resource:   "limitranges",
		Singular:   "limitrange",
		Short:      []string{"limits"},
		Namespaced: true,
		Storage:    "limitranges",
		New:        func() kinds.Object { return &corev1.LimitRange{} },
		NewList:    func() runtime.Object { return &corev1.LimitRangeList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			Default:        kinds.Each(defaultLimitRange),
			Validate:       kinds.Check(validateLimitRange),
			ValidateUpdate: kinds.CheckUpdate(func(l, _ *corev1.LimitRange) field.ErrorList { return validateLimitRange(l) }),
			CreateOnUpdate: true,
		},
		Table: kinds.Table{
			Columns: kinds.Columns("Name", "Created At|date"),
			Row: kinds.Row(func(l *corev1.LimitRange, _ time.Time) []any {
				return []any{l.Name, l.CreationTimestamp.UTC().Format(time.RFC3339)}
			}),
		},
	}
}

// defaultLimitRange fills a container item from top to bottom: a missing default
// is the maximum, a missing request is the default or else the minimum.
func defaultLimitRange(l *corev1.LimitRange) {
	for i := range l.Spec.Limits {
		item := &l.Spec.Limits[i]
		for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
			roundResources(list)
		}
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		fillResources(&item.Default, item.Max)
		fillResources(&item.DefaultRequest, item.Default)
		fillResources(&item.DefaultRequest, item.Min)
	}
}

func fillResources(into *corev1.ResourceList, from corev1.ResourceList) {
	if *into == nil {
		*into = corev1.ResourceList{}
	}
	for name, quantity := range from {
		if _, set := (*into)[name]; !set {
			(*into)[name] = quantity.DeepCopy()
		}
	}
}
