package core

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

const setOnceText = "may not change once set"

// checkClusterIPs checks addresses and families as far as they are given: what
// is missing is allocated.
func checkClusterIPs(f *kinds.Faults, s *corev1.Service, old []string, at *kinds.Path) {
	spec := &s.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	ips, families := at.Child("clusterIPs"), at.Child("ipFamilies")
	switch {
	case spec.ClusterIP == "" && len(spec.ClusterIPs) > 0:
		f.Invalid(ips, spec.ClusterIPs, "must be empty when `clusterIP` is not specified")
	case spec.ClusterIP != "" && len(spec.ClusterIPs) == 0:
		f.Required(ips, "")
	case spec.ClusterIP != "" && spec.ClusterIPs[0] != spec.ClusterIP:
		f.Invalid(ips, spec.ClusterIPs, "first value must match `clusterIP`")
	}
	seen := sets.New[corev1.IPFamily]()
	for i, family := range spec.IPFamilies {
		kinds.OneOf(f, families.Index(i), family, corev1.IPv4Protocol, corev1.IPv6Protocol)
		if seen.Has(family) {
			f.Duplicate(families.Index(i), family)
		}
		seen.Insert(family)
	}
	if spec.IPFamilyPolicy != nil {
		kinds.OneOf(f, at.Child("ipFamilyPolicy"), *spec.IPFamilyPolicy, corev1.IPFamilyPolicySingleStack,
			corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack)
	}
	if !checkAddresses(f, spec.ClusterIPs, old, ips) || headless(s) {
		return
	}
	for i, ip := range spec.ClusterIPs {
		if i >= len(spec.IPFamilies) {
			break
		}
		want := spec.IPFamilies[i]
		if (want == corev1.IPv4Protocol || want == corev1.IPv6Protocol) && familyOf(ip) != want {
			f.Invalid(ips.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%v]`", want, i))
		}
	}
}

// checkAddresses checks the addresses by themselves; false: they make no sense.
func checkAddresses(f *kinds.Faults, list, old []string, at *kinds.Path) bool {
	bad := false
	for i, ip := range list {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(list) > 1 {
				bad = true
				f.Invalid(at, list, "'None' must be the first and only value")
			}
			continue
		}
		errs := validation.IsValidIPForLegacyField(at.Index(i).Field(), ip, strictIPs, old)
		f.Join(errs)
		bad = bad || len(errs) > 0
	}
	if len(list) > 2 {
		f.Invalid(at, list, "may only hold up to 2 values")
	}
	if !bad && len(list) > 1 && familyOf(list[0]) == familyOf(list[1]) {
		f.Invalid(at, list, "may specify no more than one IP for each IP family")
	}
	return !bad
}

func familyOf(ip string) corev1.IPFamily {
	if address, err := netip.ParseAddr(ip); err == nil && address.Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// validateServiceUpdate: the first address and family stay for as long as the
// service has a type that has any; the second may come and go.
func validateServiceUpdate(s, old *corev1.Service) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("spec")
	if hasClusterIP(s) && hasClusterIP(old) && !(headless(s) && headless(old)) {
		checkSetOnce(&f, s, s.Spec.ClusterIPs, old.Spec.ClusterIPs, "clusterIP", at.Child("clusterIPs"))
		if !headless(s) && !headless(old) {
			checkSetOnce(&f, s, s.Spec.IPFamilies, old.Spec.IPFamilies, "ipFamily", at.Child("ipFamilies"))
		}
	}
	balanced := s.Spec.Type == corev1.ServiceTypeLoadBalancer && old.Spec.Type == corev1.ServiceTypeLoadBalancer
	if balanced && !kinds.Same(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
		f.Invalid(at.Child("loadBalancerClass"), s.Spec.LoadBalancerClass, setOnceText)
	}
	if healthChecked(s) && healthChecked(old) && s.Spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort {
		f.Forbidden(at.Child("healthCheckNodePort"), "field is immutable")
	}
	f.Join(validateService(s, old))
	return f.List()
}

func checkSetOnce[T ~string](f *kinds.Faults, s *corev1.Service, now, was []T, word string, at *kinds.Path) {
	if len(now) == len(was) {
		for i := range was {
			if now[i] != was[i] {
				f.Invalid(at.Index(i), now, setOnceText)
			}
		}
		return
	}
	if len(now) == 0 {
		f.Invalid(at.Index(0), now, "primary "+word+" can not be unset")
		return
	}
	if len(was) > 0 && now[0] != was[0] {
		f.Invalid(at.Index(0), now, setOnceText)
	}
	if len(was) > len(now) && len(now) == 1 && kinds.Deref(s.Spec.IPFamilyPolicy) != corev1.IPFamilyPolicySingleStack {
		f.Invalid(kinds.NewPath("spec").Child("ipFamilyPolicy"), s.Spec.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary "+word)
	}
}

func validateServiceStatus(s, _ *corev1.Service) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("status").Child("loadBalancer").Child("ingress")
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer && len(s.Status.LoadBalancer.Ingress) > 0 {
		f.Forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'")
		return f.List()
	}
	for i, point := range s.Status.LoadBalancer.Ingress {
		here := at.Index(i)
		if point.IP != "" {
			f.Join(validateOldIP(point.IP, here.Child("ip")))
		}
		switch {
		case point.IPMode == nil && point.IP != "":
			f.Required(here.Child("ipMode"), "must be specified when `ip` is set")
		case point.IPMode != nil && point.IP == "":
			f.Forbidden(here.Child("ipMode"), "may not be specified when `ip` is not set")
		case point.IPMode != nil:
			kinds.OneOf(&f, here.Child("ipMode"), *point.IPMode, corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy)
		}
		if point.Hostname == "" {
			continue
		}
		f.Each(here.Child("hostname"), point.Hostname, validation.IsDNS1123Subdomain(point.Hostname))
		if _, err := netip.ParseAddr(point.Hostname); err == nil {
			f.Invalid(here.Child("hostname"), point.Hostname, "must be a DNS name, not an IP address")
		}
	}
	return f.List()
}
