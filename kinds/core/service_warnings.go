package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// serviceWarnings are about addresses that parsers disagree about and fields
// that do nothing for the service.
func serviceWarnings(s, _ *corev1.Service) []string {
	var w []string
	spec, at := &s.Spec, field.NewPath("spec")
	outside := spec.Type == corev1.ServiceTypeExternalName
	if _, ok := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		w = append(w, fmt.Sprintf("annotation %s is deprecated, please use %s instead",
			corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode))
	}
	if spec.ClusterIP != "" && !headless(s) {
		for i, ip := range spec.ClusterIPs {
			w = append(w, validation.GetWarningsForIP(at.Child("clusterIPs").Index(i), ip)...)
		}
	}
	for i, ip := range spec.ExternalIPs {
		w = append(w, validation.GetWarningsForIP(at.Child("externalIPs").Index(i), ip)...)
	}
	if spec.LoadBalancerIP != "" {
		w = append(w, validation.GetWarningsForIP(at.Child("loadBalancerIP"), spec.LoadBalancerIP)...)
	}
	for i, cidr := range spec.LoadBalancerSourceRanges {
		w = append(w, validation.GetWarningsForCIDR(at.Child("loadBalancerSourceRanges").Index(i), cidr)...)
	}
	for _, useless := range []struct {
		said bool
		text string
	}{
		{headless(s) && spec.LoadBalancerIP != "", "spec.loadBalancerIP is ignored for headless services"},
		{headless(s) && len(spec.ExternalIPs) > 0, "spec.externalIPs is ignored for headless services"},
		{headless(s) && spec.SessionAffinity != corev1.ServiceAffinityNone, "spec.SessionAffinity is ignored for headless services"},
		{!headless(s) && !outside && len(spec.ExternalIPs) > 0, "spec.externalIPs is deprecated and may no longer be implemented in some clusters"},
		{outside && len(spec.ExternalIPs) > 0, `spec.externalIPs is ignored when spec.type is "ExternalName"`},
		{!outside && spec.ExternalName != "", `spec.externalName is ignored when spec.type is not "ExternalName"`},
		{spec.TrafficDistribution != nil && *spec.TrafficDistribution == corev1.ServiceTrafficDistributionPreferClose,
			`spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"`},
	} {
		if useless.said {
			w = append(w, useless.text)
		}
	}
	return w
}
