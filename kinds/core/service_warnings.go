package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// serviceWarnings are about addresses that parsers disagree about and fields
// that do nothing for the service.
func serviceWarnings(s, _ *corev1.Service) []string {
	var w []string
	spec, at := &s.Spec, kinds.NewPath("spec")
	outside := spec.Type == corev1.ServiceTypeExternalName
	if _, ok := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok {
		w = append(w, fmt.Sprintf("annotation %s is deprecated, please use %s instead",
			corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode))
	}
	if spec.ClusterIP != "" && !headless(s) {
		for i, ip := range spec.ClusterIPs {
			w = append(w, validation.GetWarningsForIP(at.Child("clusterIPs").Index(i).Field(), ip)...)
		}
	}
	say := func(said bool, text string) {
		if said {
			w = append(w, text)
		}
	}
	without := headless(s)
	say(without && spec.LoadBalancerIP != "", "spec.loadBalancerIP is ignored for headless services")
	say(without && len(spec.ExternalIPs) > 0, "spec.externalIPs is ignored for headless services")
	say(without && spec.SessionAffinity != corev1.ServiceAffinityNone, "spec.SessionAffinity is ignored for headless services")
	for i, ip := range spec.ExternalIPs {
		w = append(w, validation.GetWarningsForIP(at.Child("externalIPs").Index(i).Field(), ip)...)
	}
	say(!without && !outside && len(spec.ExternalIPs) > 0, "spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	if spec.LoadBalancerIP != "" {
		w = append(w, validation.GetWarningsForIP(at.Child("loadBalancerIP").Field(), spec.LoadBalancerIP)...)
	}
	for i, cidr := range spec.LoadBalancerSourceRanges {
		w = append(w, validation.GetWarningsForCIDR(at.Child("loadBalancerSourceRanges").Index(i).Field(), cidr)...)
	}
	say(outside && len(spec.ExternalIPs) > 0, `spec.externalIPs is ignored when spec.type is "ExternalName"`)
	say(!outside && spec.ExternalName != "", `spec.externalName is ignored when spec.type is not "ExternalName"`)
	say(spec.TrafficDistribution != nil && *spec.TrafficDistribution == corev1.ServiceTrafficDistributionPreferClose,
		`spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"`)
	return w
}
