package quota

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Names are the resources in a list, sorted.
func Names(list corev1.ResourceList) []corev1.ResourceName { return slices.Sorted(maps.Keys(list)) }

// Add is a + b; both stay as they are.
func Add(a, b corev1.ResourceList) corev1.ResourceList {
	sum := corev1.ResourceList{}
	for name, amount := range a {
		sum[name] = amount.DeepCopy()
	}
	for name, amount := range b {
		total, ok := sum[name]
		if !ok {
			sum[name] = amount.DeepCopy()
			continue
		}
		total.Add(amount)
		sum[name] = total
	}
	return sum
}

// Rise is by how much b is more than a, where it is.
func Rise(a, b corev1.ResourceList) corev1.ResourceList {
	more := corev1.ResourceList{}
	for name, amount := range b {
		amount = amount.DeepCopy()
		amount.Sub(a[name])
		if amount.Sign() > 0 {
			more[name] = amount
		}
	}
	return more
}

// Less is a - b for the resources of a, never below zero.
func Less(a, b corev1.ResourceList) corev1.ResourceList {
	rest := corev1.ResourceList{}
	for name, amount := range a {
		amount = amount.DeepCopy()
		if taken, ok := b[name]; ok {
			amount.Sub(taken)
			if amount.Sign() < 0 {
				amount.Set(0)
			}
		}
		rest[name] = amount
	}
	return rest
}

// Only keeps the named resources.
func Only(list corev1.ResourceList, names []corev1.ResourceName) corev1.ResourceList {
	kept := corev1.ResourceList{}
	for _, name := range names {
		if amount, ok := list[name]; ok {
			kept[name] = amount.DeepCopy()
		}
	}
	return kept
}

// Over are the resources of which used is more than hard allows, sorted.
func Over(used, hard corev1.ResourceList) []corev1.ResourceName {
	var over []corev1.ResourceName
	for _, name := range Names(used) {
		if most, ok := hard[name]; ok {
			if amount := used[name]; amount.Cmp(most) > 0 {
				over = append(over, name)
			}
		}
	}
	return over
}

// Equal compares by value.
func Equal(a, b corev1.ResourceList) bool {
	return maps.EqualFunc(a, b, func(x, y resource.Quantity) bool { return x.Cmp(y) == 0 })
}

// Negative are the resources below zero, sorted.
func Negative(list corev1.ResourceList) []corev1.ResourceName {
	return slices.DeleteFunc(Names(list), func(name corev1.ResourceName) bool {
		amount := list[name]
		return amount.Sign() >= 0
	})
}

// Show is "cpu=1,pods=2".
func Show(list corev1.ResourceList) string {
	parts := make([]string, 0, len(list))
	for _, name := range Names(list) {
		amount := list[name]
		parts = append(parts, fmt.Sprintf("%s=%s", name, amount.String()))
	}
	return strings.Join(parts, ",")
}

// ShowNames is "cpu,pods".
func ShowNames(names []corev1.ResourceName) string {
	parts := make([]string, 0, len(names))
	for _, name := range names {
		parts = append(parts, string(name))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}
