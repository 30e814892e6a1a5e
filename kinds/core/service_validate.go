package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

const onlyBalancerText = "may only be used when `type` is 'LoadBalancer'"

// headless services have no address of their own.
func headless(s *corev1.Service) bool {
	return len(s.Spec.ClusterIPs) == 1 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

// validateService checks a service in upstream's order. Addresses that old, which may
// be nil, has already may be written as they once could be.
func validateService(s, old *corev1.Service) field.ErrorList {
	var f kinds.Faults
	spec, at := &s.Spec, kinds.NewPath("spec")
	if old == nil {
		old = &corev1.Service{}
	}
	ports := at.Child("ports")
	checkTopologyAnnotations(&f, s.Annotations)
	checkServiceType(&f, s, at)
	checkServicePorts(&f, spec.Ports, ports)
	f.JoinAt(at.Child("selector"), metavalidation.ValidateLabels(spec.Selector, kinds.Here))
	checkSessionAffinity(&f, spec, at)
	checkClusterIPs(&f, s, old.Spec.ClusterIPs, at)
	for i, ip := range spec.ExternalIPs {
		here := at.Child("externalIPs").Index(i)
		if errs := validation.IsValidIPForLegacyField(here.Field(), ip, strictIPs, old.Spec.ExternalIPs); len(errs) > 0 {
			f.Join(errs)
			continue
		}
		f.Join(ValidateEndpointIP(ip, here))
	}
	kinds.RequiredOneOf(&f, at.Child("type"), spec.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName)
	checkDistinctPorts(&f, spec, ports)
	checkSourceRanges(&f, s, old, at.Child("LoadBalancerSourceRanges"))
	checkBalancer(&f, s, at)
	checkTraffic(&f, s, at)
	return f.List()
}

func checkTopologyAnnotations(f *kinds.Faults, annotations map[string]string) {
	hints, hinted := annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	mode, set := annotations[corev1.AnnotationTopologyMode]
	if set && hinted && mode != hints {
		f.Invalid(kinds.NewPath("metadata").Child("annotations").Key(corev1.AnnotationTopologyMode), mode,
			fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints))
	}
}

func checkServiceType(f *kinds.Faults, s *corev1.Service, at *kinds.Path) {
	spec := &s.Spec
	if len(spec.Ports) == 0 && !headless(s) && spec.Type != corev1.ServiceTypeExternalName {
		f.Required(at.Child("ports"), "")
	}
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if headless(s) {
			f.Invalid(at.Child("clusterIPs").Index(0), spec.ClusterIPs[0], fmt.Sprintf("may not be set to 'None' for %s services", spec.Type))
		}
	case corev1.ServiceTypeExternalName:
		const not = "may not be set for ExternalName services"
		if len(spec.ClusterIPs) > 0 {
			f.Forbidden(at.Child("clusterIPs"), not)
		}
		if len(spec.IPFamilies) > 0 {
			f.Forbidden(at.Child("ipFamilies"), not)
		}
		if spec.IPFamilyPolicy != nil {
			f.Forbidden(at.Child("ipFamilyPolicy"), not)
		}
		// A final dot says that the name is complete.
		name := strings.TrimSuffix(spec.ExternalName, ".")
		if f.NonEmpty(at.Child("externalName"), name) {
			f.Each(at.Child("externalName"), name, validation.IsDNS1123Subdomain(name))
		}
	}
}

func checkServicePorts(f *kinds.Faults, ports []corev1.ServicePort, at *kinds.Path) {
	names := sets.New[string]()
	for i := range ports {
		checkServicePort(f, &ports[i], len(ports) > 1, names, at.Index(i))
	}
}

// checkDistinctPorts: a number is there once for each protocol, among the ports and
// among those of nodes.
func checkDistinctPorts(f *kinds.Faults, spec *corev1.ServiceSpec, at *kinds.Path) {
	type number struct {
		protocol corev1.Protocol
		port     int32
	}
	nodePorts, ports := sets.New[number](), sets.New[number]()
	for i, port := range spec.Ports {
		if port.NodePort != 0 && spec.Type == corev1.ServiceTypeClusterIP {
			f.Forbidden(at.Index(i).Child("nodePort"), "may not be used when `type` is 'ClusterIP'")
		}
	}
	for i, port := range spec.Ports {
		key := number{port.Protocol, port.NodePort}
		if port.NodePort != 0 && nodePorts.Has(key) {
			f.Duplicate(at.Index(i).Child("nodePort"), port.NodePort)
		}
		nodePorts.Insert(key)
	}
	for i, port := range spec.Ports {
		key := number{port.Protocol, port.Port}
		if ports.Has(key) {
			f.Duplicate(at.Index(i), shownPort{Protocol: port.Protocol, Port: port.Port})
		}
		ports.Insert(key)
	}
}

// shownPort is how upstream shows a port of which there are two.
type shownPort struct {
	Name        string
	Protocol    corev1.Protocol
	AppProtocol *string
	Port        int32
	TargetPort  int32
	NodePort    int32
}

func checkServicePort(f *kinds.Faults, port *corev1.ServicePort, named bool, names sets.Set[string], at *kinds.Path) {
	switch {
	case port.Name != "":
		f.Each(at.Child("name"), port.Name, validation.IsDNS1123Label(port.Name))
		if names.Has(port.Name) {
			f.Duplicate(at.Child("name"), port.Name)
		}
		names.Insert(port.Name)
	case named:
		f.Required(at.Child("name"), "")
	}
	f.Each(at.Child("port"), port.Port, validation.IsValidPortNum(int(port.Port)))
	kinds.RequiredOneOf(f, at.Child("protocol"), port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
	f.Join(validatePort(port.TargetPort, at.Child("targetPort")))
	if port.AppProtocol != nil {
		f.Each(at.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol))
	}
}

func checkSessionAffinity(f *kinds.Faults, spec *corev1.ServiceSpec, at *kinds.Path) {
	kinds.RequiredOneOf(f, at.Child("sessionAffinity"), spec.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	config, here := spec.SessionAffinityConfig, at.Child("sessionAffinityConfig")
	const when = "when session affinity type is ClientIP"
	switch {
	case spec.SessionAffinity == corev1.ServiceAffinityNone && config != nil:
		f.Forbidden(here, "must not be set when session affinity is None")
	case spec.SessionAffinity != corev1.ServiceAffinityClientIP:
	case config == nil:
		f.Required(here, when)
	case config.ClientIP == nil:
		f.Required(here.Child("clientIP"), when)
	case config.ClientIP.TimeoutSeconds == nil:
		f.Required(here.Child("clientIP").Child("timeoutSeconds"), when)
	case *config.ClientIP.TimeoutSeconds <= 0 || *config.ClientIP.TimeoutSeconds > maxClientIPSeconds:
		f.Invalid(here.Child("clientIP").Child("timeoutSeconds"), config.ClientIP.TimeoutSeconds,
			fmt.Sprintf("must be greater than 0 and less than %d", maxClientIPSeconds))
	}
}

// maxClientIPSeconds is a day: the longest that a client stays with an endpoint.
const maxClientIPSeconds = 86400

// checkSourceRanges checks from where a balancer may be reached, as the field or, if
// that is empty, its older annotation says it.
func checkSourceRanges(f *kinds.Faults, s, old *corev1.Service, at *kinds.Path) {
	balancer := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	annotation, annotated := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	if ranges := s.Spec.LoadBalancerSourceRanges; len(ranges) > 0 {
		if !balancer {
			f.Forbidden(at, onlyBalancerText)
		}
		known := trimmed(old.Spec.LoadBalancerSourceRanges)
		for i, value := range trimmed(ranges) {
			f.Join(validation.IsValidCIDRForLegacyField(at.Index(i).Field(), value, strictIPs, known))
		}
		return
	}
	if !annotated {
		return
	}
	key := kinds.NewPath("metadata").Child("annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
	if !balancer {
		f.Forbidden(key, onlyBalancerText)
	}
	if before, was := old.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]; was && before == annotation || strings.TrimSpace(annotation) == "" {
		return
	}
	for _, value := range trimmed(strings.Split(annotation, ",")) {
		f.Join(validation.IsValidCIDRForLegacyField(key.Field(), value, strictIPs, nil))
	}
}

func trimmed(list []string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, strings.TrimSpace(s))
	}
	return out
}

func checkBalancer(f *kinds.Faults, s *corev1.Service, at *kinds.Path) {
	spec := &s.Spec
	balancer := spec.Type == corev1.ServiceTypeLoadBalancer
	switch {
	case !balancer && spec.AllocateLoadBalancerNodePorts != nil:
		f.Forbidden(at.Child("allocateLoadBalancerNodePorts"), onlyBalancerText)
	case balancer && spec.AllocateLoadBalancerNodePorts == nil:
		f.Required(kinds.NewPath("allocateLoadBalancerNodePorts"), "")
	}
	switch {
	case spec.LoadBalancerClass == nil:
	case !balancer:
		f.Forbidden(at.Child("loadBalancerClass"), onlyBalancerText)
	default:
		f.Each(at.Child("loadBalancerClass"), *spec.LoadBalancerClass, validation.IsQualifiedName(*spec.LoadBalancerClass))
	}
}

// checkTraffic lets a health check port be missing: it may still be allocated.
func checkTraffic(f *kinds.Faults, s *corev1.Service, at *kinds.Path) {
	spec := &s.Spec
	external := at.Child("externalTrafficPolicy")
	if reachable(s) {
		kinds.RequiredOneOf(f, external, spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster,
			corev1.ServiceExternalTrafficPolicyLocal)
	} else if spec.ExternalTrafficPolicy != "" {
		f.Invalid(external, spec.ExternalTrafficPolicy, "may only be set for externally-accessible services")
	}
	if port := spec.HealthCheckNodePort; port != 0 {
		health := at.Child("healthCheckNodePort")
		if !healthChecked(s) {
			f.Invalid(health, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
		} else {
			f.Each(health, port, validation.IsValidPortNum(int(port)))
		}
	}
	internal := at.Child("internalTrafficPolicy")
	switch {
	case spec.InternalTrafficPolicy != nil:
		kinds.OneOf(f, internal, *spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)
	case spec.Type != corev1.ServiceTypeExternalName:
		f.Required(internal, "")
	}
	if spec.TrafficDistribution != nil {
		kinds.Listed(f, at.Child("trafficDistribution"), *spec.TrafficDistribution, corev1.ServiceTrafficDistributionPreferClose,
			corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)
	}
}
