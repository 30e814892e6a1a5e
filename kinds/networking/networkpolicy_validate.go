package networking

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/sampan-dev/sampan/kinds"
)

// maxPolicyTypes is how many directions there are.
const maxPolicyTypes = 2

func validateNetworkPolicy(p *networkingv1.NetworkPolicy) field.ErrorList {
	var f kinds.Faults
	at, spec := field.NewPath("spec"), &p.Spec
	checkSelector(&f, &spec.PodSelector, at.Child("podSelector"))
	for i := range spec.Ingress {
		here := at.Child("ingress").Index(i)
		checkPolicyPorts(&f, spec.Ingress[i].Ports, here.Child("ports"))
		checkPeers(&f, spec.Ingress[i].From, here.Child("from"))
	}
	for i := range spec.Egress {
		here := at.Child("egress").Index(i)
		checkPolicyPorts(&f, spec.Egress[i].Ports, here.Child("ports"))
		checkPeers(&f, spec.Egress[i].To, here.Child("to"))
	}
	types := at.Child("policyTypes")
	if len(spec.PolicyTypes) > maxPolicyTypes {
		f.Invalid(types, &spec.PolicyTypes, "may not specify more than two policyTypes")
		return f.List()
	}
	for i, direction := range spec.PolicyTypes {
		kinds.OneOf(&f, types.Index(i), direction, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)
	}
	return f.List()
}

func checkSelector(f *kinds.Faults, s *metav1.LabelSelector, at *field.Path) {
	f.Join(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, at))
}

func checkPolicyPorts(f *kinds.Faults, ports []networkingv1.NetworkPolicyPort, at *field.Path) {
	for i := range ports {
		port, here := &ports[i], at.Index(i)
		if port.Protocol != nil {
			kinds.OneOf(f, here.Child("protocol"), *port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		}
		end := here.Child("endPort")
		switch {
		case port.Port == nil:
			if port.EndPort != nil {
				f.Invalid(end, *port.EndPort, "may not be specified when `port` is not specified")
			}
		case port.Port.Type == intstr.String:
			if port.EndPort != nil {
				f.Invalid(end, *port.EndPort, "may not be specified when `port` is non-numeric")
			}
			f.Each(here.Child("port"), port.Port.StrVal, validation.IsValidPortName(port.Port.StrVal))
		default:
			f.Each(here.Child("port"), port.Port.IntVal, validation.IsValidPortNum(int(port.Port.IntVal)))
			if port.EndPort == nil {
				break
			}
			if *port.EndPort < port.Port.IntVal {
				f.Invalid(end, *port.EndPort, "must be greater than or equal to `port`")
			}
			f.Each(end, *port.EndPort, validation.IsValidPortNum(int(*port.EndPort)))
		}
	}
}

// checkPeers: a peer is pods, namespaces, both together, or a range alone.
func checkPeers(f *kinds.Faults, peers []networkingv1.NetworkPolicyPeer, at *field.Path) {
	for i := range peers {
		peer, here := &peers[i], at.Index(i)
		checkSelector(f, peer.PodSelector, here.Child("podSelector"))
		checkSelector(f, peer.NamespaceSelector, here.Child("namespaceSelector"))
		if peer.IPBlock != nil {
			checkBlock(f, peer.IPBlock, here.Child("ipBlock"))
		}
		selected := peer.PodSelector != nil || peer.NamespaceSelector != nil
		switch {
		case !selected && peer.IPBlock == nil:
			f.Required(here, "must specify a peer")
		case selected && peer.IPBlock != nil:
			f.Forbidden(here, "may not specify both ipBlock and another peer")
		}
	}
}

func checkBlock(f *kinds.Faults, b *networkingv1.IPBlock, at *field.Path) {
	if !f.NonEmpty(at.Child("cidr"), b.CIDR) {
		return
	}
	f.Join(validation.IsValidCIDRForLegacyField(at.Child("cidr"), b.CIDR, strictCIDRs, nil))
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return
	}
	for i, cidr := range b.Except {
		here := at.Child("except").Index(i)
		f.Join(validation.IsValidCIDRForLegacyField(here, cidr, strictCIDRs, nil))
		_, part, err := netutils.ParseCIDRSloppy(cidr)
		if err != nil {
			continue
		}
		size, _ := whole.Mask.Size()
		partSize, _ := part.Mask.Size()
		if !whole.Contains(part.IP) || size >= partSize {
			f.Invalid(here, cidr, "must be a strict subset of `cidr`")
		}
	}
}

// strictCIDRs refuses forms that parsers disagree about, as upstream since 1.36.
const strictCIDRs = true
