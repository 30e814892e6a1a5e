package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// Seccomp and AppArmor profiles were annotations once, and clients still write
// them: the values must be well formed and say what the fields say.

// validateProfileAnnotations checks the annotations by themselves.
func validateProfileAnnotations(annotations map[string]string, spec *corev1.PodSpec, at *kinds.Path) field.ErrorList {
	c := &podCheck{spec: spec}
	for key, value := range annotations {
		if key == corev1.SeccompPodAnnotationKey || strings.HasPrefix(key, corev1.SeccompContainerAnnotationKeyPrefix) {
			c.seccompAnnotation(value, at.Child(key))
		}
		container, ok := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
		if !ok {
			continue
		}
		found := false
		eachContainer(spec, func(c *corev1.Container, _ place) { found = found || c.Name == container })
		if !found {
			c.Invalid(at.Key(key), container, "container not found")
		}
		if !isAppArmorAnnotation(value) {
			c.Invalid(at.Key(key), value, fmt.Sprintf("invalid AppArmor profile name: %q", value))
		}
	}
	return c.List()
}

func isAppArmorAnnotation(value string) bool {
	return value == "" || value == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault ||
		value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined ||
		strings.HasPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
}

func (c *podCheck) seccompAnnotation(value string, at *kinds.Path) {
	switch value {
	case corev1.SeccompProfileRuntimeDefault, corev1.DeprecatedSeccompProfileDockerDefault, corev1.SeccompProfileNameUnconfined:
		return
	}
	path, ok := strings.CutPrefix(value, corev1.SeccompLocalhostProfileNamePrefix)
	if !ok {
		c.Invalid(at, value, "must be a valid seccomp profile")
		return
	}
	c.descendingPath(at, path)
}

// validateProfilesAgree compares annotations with fields.
func validateProfilesAgree(annotations map[string]string, spec *corev1.PodSpec, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	var podArmor *corev1.AppArmorProfile
	if sc := spec.SecurityContext; sc != nil {
		podArmor = sc.AppArmorProfile
		if value, ok := annotations[corev1.SeccompPodAnnotationKey]; ok {
			seccompAgrees(&f, value, sc.SeccompProfile, at.Child("securityContext").Child("seccompProfile"))
		}
	}
	windows := spec.OS != nil && spec.OS.Name == corev1.Windows
	eachContainer(spec, func(container *corev1.Container, in place) {
		at := in.under(at)
		at, armor := at.Child("securityContext"), podArmor
		if sc := container.SecurityContext; sc != nil {
			if sc.AppArmorProfile != nil {
				armor = sc.AppArmorProfile
			}
			if value, ok := annotations[corev1.SeccompContainerAnnotationKeyPrefix+container.Name]; ok {
				seccompAgrees(&f, value, sc.SeccompProfile, at.Child("seccompProfile"))
			}
		}
		value, ok := annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+container.Name]
		if ok && !windows {
			appArmorAgrees(&f, value, armor, at.Child("appArmorProfile"))
		}
	})
	return f.List()
}

func seccompAgrees(f *kinds.Faults, value string, p *corev1.SeccompProfile, at *kinds.Path) {
	if p == nil {
		return
	}
	agrees := true
	switch p.Type {
	case corev1.SeccompProfileTypeUnconfined:
		agrees = value == corev1.SeccompProfileNameUnconfined
	case corev1.SeccompProfileTypeRuntimeDefault:
		agrees = value == corev1.SeccompProfileRuntimeDefault || value == corev1.DeprecatedSeccompProfileDockerDefault
	case corev1.SeccompProfileTypeLocalhost:
		var path string
		path, agrees = strings.CutPrefix(value, corev1.SeccompLocalhostProfileNamePrefix)
		if agrees && path != kinds.Deref(p.LocalhostProfile) {
			f.Forbidden(at.Child(localhostProfileField), "seccomp profile in annotation and field must match")
		}
	}
	if !agrees {
		f.Forbidden(at.Child("type"), "seccomp type in annotation and field must match")
	}
}

func appArmorAgrees(f *kinds.Faults, value string, p *corev1.AppArmorProfile, at *kinds.Path) {
	if p == nil {
		return
	}
	agrees := true
	switch p.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		agrees = value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined
	case corev1.AppArmorProfileTypeRuntimeDefault:
		agrees = value == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault
	case corev1.AppArmorProfileTypeLocalhost:
		var path string
		path, agrees = strings.CutPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		if agrees && path != kinds.Deref(p.LocalhostProfile) {
			f.Forbidden(at.Child(localhostProfileField), "apparmor profile in annotation and field must match")
		}
	}
	if !agrees {
		f.Forbidden(at.Child("type"), "apparmor type in annotation and field must match")
	}
}
