package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kinds"
)

// takeAppArmorAnnotations writes into the fields what a new pod says in the
// annotations that came before them, where the fields say nothing.
func takeAppArmorAnnotations(p *corev1.Pod) {
	if p.Spec.OS != nil && p.Spec.OS.Name == corev1.Windows {
		return
	}
	var ofPod *corev1.AppArmorProfile
	if sc := p.Spec.SecurityContext; sc != nil {
		ofPod = sc.AppArmorProfile
	}
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			profile := appArmorProfile(p.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name])
			said := c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil
			if profile == nil || said || kinds.Same(profile, ofPod) {
				continue
			}
			orDefault(&c.SecurityContext, corev1.SecurityContext{})
			c.SecurityContext.AppArmorProfile = profile
		}
	}
}

// appArmorProfile is what an annotation says; nil if that makes no sense.
func appArmorProfile(value string) *corev1.AppArmorProfile {
	switch value {
	case corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	case corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	}
	name, ok := strings.CutPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
	if !ok || name == "" || strings.TrimSpace(name) != name || len(name) > maxAppArmorProfile {
		return nil
	}
	return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
}
