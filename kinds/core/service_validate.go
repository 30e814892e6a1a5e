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

func validateService(s *corev1.Service) field.ErrorList {
	var f kinds.Faults
	spec, at := &s.Spec, field.NewPath("spec")
	checkTopologyAnnotations(&f, s.Annotations)
	checkServiceType(&f, s, at)
	checkServicePorts(&f, s, at.Child("ports"))
	f.Join(metavalidation.ValidateLabels(spec.Selector, at.Child("selector")))
	checkSessionAffinity(&f, spec, at)
	checkClusterIPs(&f, s, at)
	for i, ip := range spec.ExternalIPs {
		here := at.Child("externalIPs").Index(i)
		if errs := validateOldIP(ip, here); len(errs) > 0 {
			f.Join(errs)
			continue
		}
		f.Join(ValidateEndpointIP(ip, here))
	}
	checkBalancer(&f, s, at)
	checkTraffic(&f, s, at)
	return f.List()
}

func checkTopologyAnnotations(f *kinds.Faults, annotations map[string]string) {
	hints, hinted := annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	mode, set := annotations[corev1.AnnotationTopologyMode]
	if set && hinted && mode != hints {
		f.Invalid(field.NewPath("metadata", "annotations").Key(corev1.AnnotationTopologyMode), mode,
			fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints))
	}
}

func checkServiceType(f *kinds.Faults, s *corev1.Service, at *field.Path) {
	spec := &s.Spec
	if len(spec.Ports) == 0 && !headless(s) && spec.Type != corev1.ServiceTypeExternalName {
		f.Required(at.Child("ports"), "")
	}
	kinds.RequiredOneOf(f, at.Child("type"), spec.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName)
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

func checkServicePorts(f *kinds.Faults, s *corev1.Service, at *field.Path) {
	names := sets.New[string]()
	nodePorts, ports := sets.New[string](), sets.New[string]()
	for i := range s.Spec.Ports {
		port, here := &s.Spec.Ports[i], at.Index(i)
		checkServicePort(f, port, len(s.Spec.Ports) > 1, here)
		if port.Name != "" && names.Has(port.Name) {
			f.Duplicate(here.Child("name"), port.Name)
		}
		names.Insert(port.Name)
		if port.NodePort != 0 {
			if s.Spec.Type == corev1.ServiceTypeClusterIP {
				f.Forbidden(here.Child("nodePort"), "may not be used when `type` is 'ClusterIP'")
			}
			key := fmt.Sprintf("%s/%d", port.Protocol, port.NodePort)
			if nodePorts.Has(key) {
				f.Duplicate(here.Child("nodePort"), port.NodePort)
			}
			nodePorts.Insert(key)
		}
		key := fmt.Sprintf("%s/%d", port.Protocol, port.Port)
		if ports.Has(key) {
			f.Duplicate(here, corev1.ServicePort{Protocol: port.Protocol, Port: port.Port})
		}
		ports.Insert(key)
	}
}

func checkServicePort(f *kinds.Faults, port *corev1.ServicePort, named bool, at *field.Path) {
	switch {
	case port.Name != "":
		f.Each(at.Child("name"), port.Name, validation.IsDNS1123Label(port.Name))
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

func checkSessionAffinity(f *kinds.Faults, spec *corev1.ServiceSpec, at *field.Path) {
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
		f.Required(here.Child("clientIP", "timeoutSeconds"), when)
	case *config.ClientIP.TimeoutSeconds <= 0 || *config.ClientIP.TimeoutSeconds > maxClientIPSeconds:
		f.Invalid(here.Child("clientIP", "timeoutSeconds"), config.ClientIP.TimeoutSeconds,
			fmt.Sprintf("must be greater than 0 and less than %d", maxClientIPSeconds))
	}
}

// maxClientIPSeconds is a day: the longest that a client stays with an endpoint.
const maxClientIPSeconds = 86400

func checkBalancer(f *kinds.Faults, s *corev1.Service, at *field.Path) {
	spec := &s.Spec
	balancer := spec.Type == corev1.ServiceTypeLoadBalancer
	annotation, annotated := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	switch {
	case len(spec.LoadBalancerSourceRanges) > 0:
		ranges := at.Child("LoadBalancerSourceRanges")
		if !balancer {
			f.Forbidden(ranges, onlyBalancerText)
		}
		for i, value := range spec.LoadBalancerSourceRanges {
			f.Join(validation.IsValidCIDRForLegacyField(ranges.Index(i), strings.TrimSpace(value), strictIPs, nil))
		}
	case annotated:
		key := field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
		if !balancer {
			f.Forbidden(key, onlyBalancerText)
		}
		for _, value := range strings.Split(strings.TrimSpace(annotation), ",") {
			if annotation = strings.TrimSpace(value); annotation != "" {
				f.Join(validation.IsValidCIDRForLegacyField(key, annotation, strictIPs, nil))
			}
		}
	}
	switch {
	case !balancer && spec.AllocateLoadBalancerNodePorts != nil:
		f.Forbidden(at.Child("allocateLoadBalancerNodePorts"), onlyBalancerText)
	case balancer && spec.AllocateLoadBalancerNodePorts == nil:
		f.Required(field.NewPath("allocateLoadBalancerNodePorts"), "")
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
func checkTraffic(f *kinds.Faults, s *corev1.Service, at *field.Path) {
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
		kinds.OneOf(f, at.Child("trafficDistribution"), *spec.TrafficDistribution, corev1.ServiceTrafficDistributionPreferClose,
			corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)
	}
}
