package discovery

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/kinds/declared"
)

// The limits of a slice.
const (
	maxEndpoints      = 1000
	maxAddresses      = 100
	maxPorts          = 20000
	maxTopologyLabels = 16
	maxHints          = 8
)

func validate(s *discoveryv1.EndpointSlice) field.ErrorList {
	return rules(s, nil).Behind(check(s, nil))
}

// rules are upstream's declared rules.
func rules(s, old *discoveryv1.EndpointSlice) *declared.Rules {
	r := declared.For(old)
	declared.Field(r, s, old, kinds.NewPath("addressType"), func(s *discoveryv1.EndpointSlice) discoveryv1.AddressType { return s.AddressType },
		func(now, _ discoveryv1.AddressType, at *kinds.Path) {
			missing := !r.NonEmpty(at, string(now))
			switch {
			case old != nil:
				r.Immutable(at)
			case !missing:
				kinds.OneOf(&r.Faults, at, now, addressTypes...)
			}
		})
	declared.List(r, s, old, kinds.NewPath("endpoints"), func(s *discoveryv1.EndpointSlice) []discoveryv1.Endpoint { return s.Endpoints },
		declared.Each[discoveryv1.Endpoint]{Check: func(e, _ *discoveryv1.Endpoint, at *kinds.Path) {
			switch n := len(e.Addresses); {
			case n == 0:
				r.Faults.Required(at.Child("addresses"), "")
			case n > maxAddresses:
				r.TooMany(at.Child("addresses"), n, maxAddresses)
			}
		}})
	return r
}

var addressTypes = []discoveryv1.AddressType{discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}

// check leaves endpoints alone that are what they were.
func check(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	var f kinds.Faults
	kinds.RequiredOneOf(&f, kinds.NewPath("addressType"), s.AddressType, addressTypes...)
	checkPorts(&f, s.Ports, kinds.NewPath("ports"))
	if old != nil && kinds.Same(s.Endpoints, old.Endpoints) {
		return f.List()
	}
	at := kinds.NewPath("endpoints")
	if len(s.Endpoints) > maxEndpoints {
		f.TooMany(at, len(s.Endpoints), maxEndpoints)
		return f.List()
	}
	for i := range s.Endpoints {
		checkEndpoint(&f, &s.Endpoints[i], s.AddressType, at.Index(i))
	}
	return f.List()
}

func validateUpdate(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	var f kinds.Faults
	f.Join(check(s, old))
	return rules(s, old).Behind(f.List())
}

func checkPorts(f *kinds.Faults, ports []discoveryv1.EndpointPort, at *kinds.Path) {
	if len(ports) > maxPorts {
		f.TooMany(at, len(ports), maxPorts)
		return
	}
	names := sets.New[string]()
	for i, port := range ports {
		here, name := at.Index(i), kinds.Deref(port.Name)
		if name != "" {
			f.Each(here.Child("name"), name, kinds.DNSLabel(name))
		}
		if names.Has(name) {
			f.Duplicate(here.Child("name"), name)
		}
		names.Insert(name)
		kinds.OneOf(f, here.Child("protocol"), kinds.Deref(port.Protocol), corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		if port.AppProtocol != nil {
			f.Each(here.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol))
		}
	}
}

func checkEndpoint(f *kinds.Faults, e *discoveryv1.Endpoint, kind discoveryv1.AddressType, at *kinds.Path) {
	addresses := at.Child("addresses")
	switch {
	case len(e.Addresses) == 0:
		f.Required(addresses, "")
	case len(e.Addresses) > maxAddresses:
		f.TooMany(addresses, len(e.Addresses), maxAddresses)
	}
	for i, address := range e.Addresses {
		checkAddress(f, address, kind, addresses, i)
	}
	if e.NodeName != nil {
		f.Each(at.Child("nodeName"), *e.NodeName, kinds.DNSSubdomain(*e.NodeName))
	}
	topology := at.Child("deprecatedTopology")
	if len(e.DeprecatedTopology) > maxTopologyLabels {
		f.TooMany(topology, len(e.DeprecatedTopology), maxTopologyLabels)
	}
	f.Join(metavalidation.ValidateLabels(e.DeprecatedTopology, topology.Field()))
	if e.Hostname != nil {
		f.Each(at.Child("hostname"), *e.Hostname, kinds.DNSLabel(*e.Hostname))
	}
	if e.Hints != nil {
		checkHints(f, e.Hints, at.Child("hints"))
	}
}

func checkAddress(f *kinds.Faults, address string, kind discoveryv1.AddressType, at *kinds.Path, i int) {
	here := at.Index(i)
	var errs field.ErrorList
	var right bool
	switch kind {
	case discoveryv1.AddressTypeIPv4:
		errs, right = core.ValidateIP(address, here), netutils.IsIPv4String(address)
	case discoveryv1.AddressTypeIPv6:
		errs, right = validation.IsValidIP(here.Field(), address), netutils.IsIPv6String(address)
	case discoveryv1.AddressTypeFQDN:
		f.Join(validation.IsFullyQualifiedDomainName(here.Field(), address))
		return
	default:
		return
	}
	if len(errs) > 0 {
		f.Join(errs)
		return
	}
	if !right {
		f.Invalid(at, address, fmt.Sprintf("must be an %s address", kind))
	}
	f.Join(core.ValidateEndpointIP(address, here))
}

func checkHints(f *kinds.Faults, h *discoveryv1.EndpointHints, at *kinds.Path) {
	zones, nodes := at.Child("forZones"), at.Child("forNodes")
	if len(h.ForZones) > maxHints {
		f.TooMany(zones, len(h.ForZones), maxHints)
		return
	}
	seen := sets.New[string]()
	for i, zone := range h.ForZones {
		here := zones.Index(i).Child("name")
		if seen.Has(zone.Name) {
			f.Duplicate(here, zone.Name)
		}
		seen.Insert(zone.Name)
		f.Each(here, zone.Name, validation.IsValidLabelValue(zone.Name))
	}
	if len(h.ForNodes) > maxHints {
		f.TooMany(nodes, len(h.ForNodes), maxHints)
		return
	}
	seen = sets.New[string]()
	for i, node := range h.ForNodes {
		here := nodes.Index(i).Child("name")
		if seen.Has(node.Name) {
			f.Duplicate(here, node.Name)
		}
		seen.Insert(node.Name)
		f.Each(here, node.Name, apivalidation.NameIsDNSSubdomain(node.Name, false))
	}
}
