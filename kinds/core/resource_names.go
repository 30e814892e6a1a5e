package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// The names that resources may have without a domain, by where they stand.
var (
	countedResources = sets.New(corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices,
		corev1.ResourceReplicationControllers, corev1.ResourceSecrets, corev1.ResourceConfigMaps,
		corev1.ResourcePersistentVolumeClaims, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers)
	containerResources = sets.New(corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage)
	quotaResources     = containerResources.Union(countedResources).Insert(
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsStorage,
		corev1.ResourceRequestsEphemeralStorage, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory,
		corev1.ResourceLimitsEphemeralStorage)
	standardResources = quotaResources.Union(sets.New(corev1.ResourceStorage))
)

const requestsPrefix = corev1.DefaultResourceRequestsPrefix

func isHugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

func isQuotaHugePage(name corev1.ResourceName) bool {
	return isHugePage(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// isNative: the resource belongs to Kubernetes itself.
func isNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// isExtended: the resource belongs to a device plugin or an operator, and a
// quota could be written for it.
func isExtended(name corev1.ResourceName) bool {
	if isNative(name) || strings.HasPrefix(string(name), requestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(requestsPrefix+string(name))) == 0
}

// mayOvercommit: less may be requested than the limit.
func mayOvercommit(name corev1.ResourceName) bool { return isNative(name) && !isHugePage(name) }

// standardResourceName checks a resource's name in general.
func standardResourceName(name corev1.ResourceName, at *kinds.Path) field.ErrorList {
	if standardResources.Has(name) {
		return nil
	}
	var f kinds.Faults
	f.Each(at, name, validation.IsQualifiedName(string(name)))
	if f.None() && !strings.Contains(string(name), "/") && !isQuotaHugePage(name) {
		f.Invalid(at, name, "must be a standard resource type or fully qualified")
	}
	return f.List()
}

// containerResourceName checks the name of something a container can have.
func containerResourceName(name corev1.ResourceName, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	f.Join(standardResourceName(name, at))
	switch {
	case !strings.Contains(string(name), "/"):
		if !containerResources.Has(name) && !isHugePage(name) {
			f.Invalid(at, name, "must be a standard resource for containers")
		}
	case !isNative(name) && !isExtended(name):
		f.Invalid(at, name, "doesn't follow extended resource name standard")
	}
	return f.List()
}

// podResourceName checks the name of something a pod as a whole can have.
func podResourceName(name corev1.ResourceName, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	f.Join(standardResourceName(name, at))
	if f.None() && !isHugePage(name) {
		kinds.OneOf(&f, at, name, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceHugePagesPrefix)
	}
	return f.List()
}

// quotaResourceName checks the name of something a quota can cap.
func quotaResourceName(name corev1.ResourceName, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	f.Join(standardResourceName(name, at))
	if !strings.Contains(string(name), "/") && !quotaResources.Has(name) && !isQuotaHugePage(name) {
		f.Invalid(at, name, "must be a standard resource for quota")
	}
	return f.List()
}

// validateQuantity wants an amount of at least zero, whole where the resource
// is counted rather than measured.
func validateQuantity(name corev1.ResourceName, amount resource.Quantity, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	f.Join(nonNegativeQuantity(amount, at))
	if (countedResources.Has(name) || isExtended(name)) && amount.MilliValue()%1000 != 0 {
		f.Invalid(at, amount, "must be an integer")
	}
	return f.List()
}

func nonNegativeQuantity(amount resource.Quantity, at *kinds.Path) field.ErrorList {
	if amount.Cmp(resource.Quantity{}) < 0 {
		return field.ErrorList{field.Invalid(at.Field(), amount.String(), apivalidation.IsNegativeErrorMsg)}
	}
	return nil
}
