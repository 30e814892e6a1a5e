package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/kinds"
)

// validateEndpointsUpdate lets subsets pass that have not changed: once there were
// fewer rules.
func validateEndpointsUpdate(e, old *corev1.Endpoints) field.ErrorList {
	errs := validateEndpoints(e)
	if len(errs) > 0 && kinds.Same(e.Subsets, old.Subsets) {
		return nil
	}
	return errs
}

func validateEndpoints(e *corev1.Endpoints) field.ErrorList {
	var f kinds.Faults
	for i := range e.Subsets {
		subset, at := &e.Subsets[i], kinds.NewPath("subsets").Index(i)
		if len(subset.Addresses) == 0 && len(subset.NotReadyAddresses) == 0 {
			f.Required(at, "must specify `addresses` or `notReadyAddresses`")
		}
		for j := range subset.Addresses {
			checkEndpointAddress(&f, &subset.Addresses[j], at.Child("addresses").Index(j))
		}
		for j := range subset.NotReadyAddresses {
			checkEndpointAddress(&f, &subset.NotReadyAddresses[j], at.Child("notReadyAddresses").Index(j))
		}
		for j := range subset.Ports {
			checkEndpointPort(&f, &subset.Ports[j], len(subset.Ports) > 1, at.Child("ports").Index(j))
		}
	}
	return f.List()
}

func checkEndpointAddress(f *kinds.Faults, a *corev1.EndpointAddress, at *kinds.Path) {
	f.Join(validateOldIP(a.IP, at.Child("ip")))
	if a.Hostname != "" {
		f.Each(at.Child("hostname"), a.Hostname, validation.IsDNS1123Label(a.Hostname))
	}
	if a.NodeName != nil {
		f.Each(at.Child("nodeName"), *a.NodeName, apivalidation.NameIsDNSSubdomain(*a.NodeName, false))
	}
	f.Join(ValidateEndpointIP(a.IP, at.Child("ip")))
}

func checkEndpointPort(f *kinds.Faults, p *corev1.EndpointPort, named bool, at *kinds.Path) {
	switch {
	case p.Name != "":
		f.Each(at.Child("name"), p.Name, validation.IsDNS1123Label(p.Name))
	case named:
		f.Required(at.Child("name"), "")
	}
	f.Each(at.Child("port"), p.Port, validation.IsValidPortNum(int(p.Port)))
	kinds.RequiredOneOf(f, at.Child("protocol"), p.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
	if p.AppProtocol != nil {
		f.Each(at.Child("appProtocol"), *p.AppProtocol, validation.IsQualifiedName(*p.AppProtocol))
	}
}

// ValidateEndpointIP refuses addresses that traffic for a service must not be
// sent to: those would reach the node itself, or nobody.
func ValidateEndpointIP(value string, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	ip := netutils.ParseIPSloppy(value)
	if ip == nil {
		f.Invalid(at, value, "must be a valid IP address")
		return f.List()
	}
	if ip.IsUnspecified() {
		f.Invalid(at, value, fmt.Sprintf("may not be unspecified (%v)", value))
	}
	if ip.IsLoopback() {
		f.Invalid(at, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	}
	if ip.IsLinkLocalUnicast() {
		f.Invalid(at, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	}
	if ip.IsLinkLocalMulticast() {
		f.Invalid(at, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
	return f.List()
}
