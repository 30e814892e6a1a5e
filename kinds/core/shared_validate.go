package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// ValidateTolerations checks tolerations wherever they stand.
func ValidateTolerations(list []corev1.Toleration, at *kinds.Path) field.ErrorList {
	return validateTolerations(list, at)
}

// ValidateOverhead checks what a pod costs besides its containers.
func ValidateOverhead(list corev1.ResourceList, at *kinds.Path) field.ErrorList {
	return validateResources(&corev1.ResourceRequirements{Limits: list}, ofContainer, nil, at)
}

// ValidateIP checks an address of a field older than strict addresses.
func ValidateIP(ip string, at *kinds.Path) field.ErrorList { return validateOldIP(ip, at) }

// ContainerResourceName refuses names of what a container cannot have.
func ContainerResourceName(name corev1.ResourceName, at *kinds.Path) field.ErrorList {
	return containerResourceName(name, at)
}
