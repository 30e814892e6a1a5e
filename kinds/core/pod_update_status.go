package core

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// validatePodStatusUpdate checks what a node reports: it may not contradict what
// cannot have happened.
func validatePodStatusUpdate(p, old *corev1.Pod) field.ErrorList {
	var f kinds.Faults
	f.Join(validateMirrorAnnotations(p, old))
	status := kinds.NewPath("status")
	validatePodConditions(&f, p.Status.Conditions, status.Child("conditions"))
	nominated := status.Child("nominatedNodeName")
	if name := p.Status.NominatedNodeName; name != "" && name != old.Status.NominatedNodeName {
		f.Each(nominated, name, apivalidation.NameIsDNSSubdomain(name, false))
		if old.Spec.NodeName != "" {
			f.Forbidden(nominated, "may not be set on pods that are already bound to a node")
		}
	}
	if p.Status.ObservedGeneration < 0 {
		f.Invalid(status.Child("observedGeneration"), p.Status.ObservedGeneration, "must be a non-negative integer")
	}
	f.Immutable(status.Child("qosClass"), p.Status.QOSClass, old.Status.QOSClass)

	mayRestart := func(containers []corev1.Container) func(name string, exit int32) bool {
		return func(name string, exit int32) bool { return restartable(&old.Spec, containers, name, exit) }
	}
	never := func(string, int32) bool { return false }
	s, o := &p.Status, &old.Status
	stayEnded(&f, s.ContainerStatuses, o.ContainerStatuses, mayRestart(old.Spec.Containers), status.Child("containerStatuses"))
	stayEnded(&f, s.InitContainerStatuses, o.InitContainerStatuses, mayRestart(old.Spec.InitContainers), status.Child("initContainerStatuses"))
	stayEnded(&f, s.EphemeralContainerStatuses, o.EphemeralContainerStatuses, never, status.Child("ephemeralContainerStatuses"))
	validateClaimStatuses(&f, s.ResourceClaimStatuses, p.Spec.ResourceClaims, status.Child("resourceClaimStatuses"))
	validateExtendedClaim(&f, s.ExtendedResourceClaimStatus, &p.Spec, status.Child("extendedResourceClaimStatus"))
	validateStatusAddresses(&f, s, status)
	validateReports(&f, p, status)
	return f.List()
}

// validateReports checks what is said of the containers beyond their state.
func validateReports(f *kinds.Faults, p *corev1.Pod, status *kinds.Path) {
	s, os := &p.Status, p.Spec.OS
	containers, inits, ephemeral := status.Child("containerStatuses"), status.Child("initContainerStatuses"), status.Child("ephemeralContainerStatuses")
	validateStatusUsers(f, s.ContainerStatuses, os, containers)
	validateStatusUsers(f, s.InitContainerStatuses, os, inits)
	validateStatusUsers(f, s.EphemeralContainerStatuses, os, ephemeral)
	validateDeviceHealth(f, s, s.ContainerStatuses, p.Spec.Containers, containers)
	validateDeviceHealth(f, s, s.InitContainerStatuses, p.Spec.InitContainers, inits)
	noDeviceHealth(f, s.EphemeralContainerStatuses, ephemeral)
}

func validateStatusAddresses(f *kinds.Faults, s *corev1.PodStatus, status *kinds.Path) {
	podIPs := make([]string, 0, len(s.PodIPs))
	for _, ip := range s.PodIPs {
		podIPs = append(podIPs, ip.IP)
	}
	validateAddresses(f, podIPs, s.PodIPs, status.Child("podIPs"))
	if (s.PodIP != "") != (len(podIPs) > 0) {
		f.Invalid(status.Child("podIPs"), s.PodIPs, "podIP and podIPs must either both be set or both be unset")
	} else if len(podIPs) > 0 && podIPs[0] != s.PodIP {
		f.Invalid(status.Child("podIPs").Index(0).Child("ip"), podIPs[0], "must be equal to `podIP`")
	}
	hostIPs := make([]string, 0, len(s.HostIPs))
	for _, ip := range s.HostIPs {
		hostIPs = append(hostIPs, ip.IP)
	}
	if len(hostIPs) > 0 && hostIPs[0] != s.HostIP {
		f.Invalid(status.Child("hostIPs").Index(0).Child("ip"), hostIPs[0], "must be equal to `hostIP`")
	}
	validateAddresses(f, hostIPs, s.HostIPs, status.Child("hostIPs"))
}

func validatePodConditions(f *kinds.Faults, conditions []corev1.PodCondition, at *kinds.Path) {
	for i, c := range conditions {
		if c.ObservedGeneration < 0 {
			f.Invalid(at.Index(i).Child("observedGeneration"), c.ObservedGeneration, "must be a non-negative integer")
		}
		f.Each(at.Index(i).Child("Type"), string(c.Type), validation.IsQualifiedName(string(c.Type)))
	}
}

// stayEnded: a container that has ended for good may not live again.
func stayEnded(f *kinds.Faults, now, was []corev1.ContainerStatus, mayRestart func(string, int32) bool, at *kinds.Path) {
	for i := range was {
		ended := was[i].State.Terminated
		if ended == nil || mayRestart(was[i].Name, ended.ExitCode) {
			continue
		}
		for j := range now {
			if now[j].Name == was[i].Name && now[j].State.Terminated == nil {
				f.Forbidden(at.Index(i).Child("state"), "may not be transitioned to non-terminated state")
			}
		}
	}
}

// restartable says whether a container that exited with the code is started
// again: its own rules speak first, then its own policy, then the pod's. A rule
// that restarts everything may bring back any container.
func restartable(spec *corev1.PodSpec, containers []corev1.Container, name string, exit int32) bool {
	if restartsAll(spec) {
		return true
	}
	for i := range containers {
		if containers[i].Name != name {
			continue
		}
		for _, rule := range containers[i].RestartPolicyRules {
			if ruleApplies(rule, exit) && rule.Action == corev1.ContainerRestartRuleActionRestart {
				return true
			}
		}
		if policy := containers[i].RestartPolicy; policy != nil {
			return *policy == corev1.ContainerRestartPolicyAlways ||
				(*policy == corev1.ContainerRestartPolicyOnFailure && exit != 0)
		}
		return podRestarts(spec, exit)
	}
	return false
}

func podRestarts(spec *corev1.PodSpec, exit int32) bool {
	return spec.RestartPolicy == corev1.RestartPolicyAlways || (spec.RestartPolicy == corev1.RestartPolicyOnFailure && exit != 0)
}

func restartsAll(spec *corev1.PodSpec) bool {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			for _, rule := range containers[i].RestartPolicyRules {
				if rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

func ruleApplies(rule corev1.ContainerRestartRule, exit int32) bool {
	if rule.ExitCodes == nil {
		return false
	}
	listed := false
	for _, code := range rule.ExitCodes.Values {
		listed = listed || code == exit
	}
	return listed == (rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn)
}

// validateClaimStatuses: each names a claim of the pod, once.
func validateClaimStatuses(f *kinds.Faults, statuses []corev1.PodResourceClaimStatus, claims []corev1.PodResourceClaim, at *kinds.Path) {
	known, seen := map[string]bool{}, map[string]bool{}
	for _, claim := range claims {
		known[claim.Name] = true
	}
	for i, s := range statuses {
		here := at.Index(i)
		if !known[s.Name] {
			f.Invalid(here.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`")
		}
		if seen[s.Name] {
			f.Duplicate(here.Child("name"), s.Name)
		}
		seen[s.Name] = true
		if s.ResourceClaimName != nil {
			f.Each(here.Child("resourceClaimName"), *s.ResourceClaimName, apivalidation.NameIsDNSSubdomain(*s.ResourceClaimName, false))
		}
	}
}

// validateAddresses: at most one address of each family.
func validateAddresses(f *kinds.Faults, ips []string, value any, at *kinds.Path) {
	four, six := 0, 0
	for i, ip := range ips {
		f.Join(validateOldIP(ip, at.Index(i)))
		address, err := netip.ParseAddr(ip)
		if err != nil && len(ips) > 1 {
			f.Join(field.ErrorList{field.InternalError(at.Field(), fmt.Errorf("failed to check for dual stack with error:invalid IP[%d]: %v", i, ip))})
		}
		if address.Is4() {
			four++
		} else {
			six++
		}
	}
	if four > 1 || six > 1 {
		f.Invalid(at, value, "may specify no more than one IP for each IP family")
	}
}
