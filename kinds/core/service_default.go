package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sampan-dev/sampan/kinds"
)

func defaultService(s *corev1.Service) {
	spec := &s.Spec
	orString(&spec.Type, corev1.ServiceTypeClusterIP)
	orString(&spec.SessionAffinity, corev1.ServiceAffinityNone)
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		c := spec.SessionAffinityConfig
		if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			timeout := corev1.DefaultClientIPServiceAffinitySeconds
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
		}
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		orString(&port.Protocol, corev1.ProtocolTCP)
		if port.TargetPort == intstr.FromInt32(0) || port.TargetPort == intstr.FromString("") {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
	}
	if reachable(s) {
		orString(&spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if spec.Type != corev1.ServiceTypeExternalName {
		orDefault(&spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	orDefault(&spec.AllocateLoadBalancerNodePorts, true)
	for i := range s.Status.LoadBalancer.Ingress {
		if point := &s.Status.LoadBalancer.Ingress[i]; point.IP != "" {
			orDefault(&point.IPMode, corev1.LoadBalancerIPModeVIP)
		}
	}
}

// reachable says that a service can be reached from outside the cluster.
func reachable(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer || s.Spec.Type == corev1.ServiceTypeNodePort ||
		(s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0)
}

// healthChecked says that a load balancer asks each node whether it has an endpoint.
func healthChecked(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func hasClusterIP(s *corev1.Service) bool { return s.Spec.Type != corev1.ServiceTypeExternalName }

// hasNodePorts: ports may be open on every node; givenNodePorts: they are given
// without asking.
func hasNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

func givenNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || (s.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		(s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts))
}

// prepareService lets the one address of an old client stand for the list.
func prepareService(s *corev1.Service) {
	s.Status = corev1.ServiceStatus{}
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

// prepareServiceUpdate keeps what was allocated when the client leaves it out,
// and drops what the service's new type has no use for.
func prepareServiceUpdate(s, old *corev1.Service) {
	s.Status = old.Status
	pairClusterIPs(s, old)
	keepAllocated(s, old)
	dropByType(s, old)
}

// pairClusterIPs guesses what a client meant that changed one spelling of the
// address only.
func pairClusterIPs(s, old *corev1.Service) {
	same := kinds.Same(s.Spec.ClusterIPs, old.Spec.ClusterIPs)
	switch {
	case s.Spec.ClusterIP == old.Spec.ClusterIP:
		if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
	case !same:
	case s.Spec.ClusterIP == "":
		s.Spec.ClusterIPs = nil
	default:
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

func keepAllocated(s, old *corev1.Service) {
	if hasClusterIP(s) && hasClusterIP(old) {
		orString(&s.Spec.ClusterIP, old.Spec.ClusterIP)
		if len(s.Spec.ClusterIPs) == 0 {
			s.Spec.ClusterIPs = slices.Clone(old.Spec.ClusterIPs)
		}
	}
	if givenNodePorts(s) && givenNodePorts(old) {
		keepNodePorts(s.Spec.Ports, old.Spec.Ports)
	}
	if healthChecked(s) && healthChecked(old) {
		orNumber(&s.Spec.HealthCheckNodePort, old.Spec.HealthCheckNodePort)
	}
}

// keepNodePorts gives ports their old numbers by name, unless the client gave
// the number to another port.
func keepNodePorts(ports, old []corev1.ServicePort) {
	taken, byName := map[int32]bool{}, map[string]int32{}
	for i := range ports {
		taken[ports[i].NodePort] = true
	}
	for i := range old {
		byName[old[i].Name] = old[i].NodePort
	}
	for i := range ports {
		if before := byName[ports[i].Name]; ports[i].NodePort == 0 && !taken[before] {
			ports[i].NodePort = before
		}
	}
}

// dropByType wipes what was set for the old type and is still as it was; what
// the user changed is left for validation to refuse.
func dropByType(s, old *corev1.Service) {
	now, was := &s.Spec, &old.Spec
	if hasClusterIP(old) && !hasClusterIP(s) {
		if now.ClusterIP == was.ClusterIP && kinds.Same(now.ClusterIPs, was.ClusterIPs) {
			now.ClusterIP, now.ClusterIPs = "", nil
		}
		if kinds.Same(now.IPFamilies, was.IPFamilies) {
			now.IPFamilies = nil
		}
		if kinds.Deref(now.IPFamilyPolicy) == kinds.Deref(was.IPFamilyPolicy) {
			now.IPFamilyPolicy = nil
		}
	}
	if hasNodePorts(old) && !hasNodePorts(s) && noNewNodePorts(now.Ports, was.Ports) {
		for i := range now.Ports {
			now.Ports[i].NodePort = 0
		}
	}
	if healthChecked(old) && !healthChecked(s) && now.HealthCheckNodePort == was.HealthCheckNodePort {
		now.HealthCheckNodePort = 0
	}
	if was.Type == corev1.ServiceTypeLoadBalancer && now.Type != corev1.ServiceTypeLoadBalancer {
		if kinds.Same(now.AllocateLoadBalancerNodePorts, was.AllocateLoadBalancerNodePorts) {
			now.AllocateLoadBalancerNodePorts = nil
		}
		if kinds.Same(now.LoadBalancerClass, was.LoadBalancerClass) {
			now.LoadBalancerClass = nil
		}
	}
	if reachable(old) && !reachable(s) && now.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		now.ExternalTrafficPolicy = ""
	}
	if now.Type == corev1.ServiceTypeExternalName {
		now.InternalTrafficPolicy = nil // there is no traffic; upstream shows none
	}
	if now.Type != corev1.ServiceTypeLoadBalancer {
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

func noNewNodePorts(ports, old []corev1.ServicePort) bool {
	had := map[int32]bool{0: true}
	for i := range old {
		had[old[i].NodePort] = true
	}
	for i := range ports {
		if !had[ports[i].NodePort] {
			return false
		}
	}
	return true
}
