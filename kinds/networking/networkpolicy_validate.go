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
	"github.com/sampan-dev/sampan/kinds/declared"
)

// maxPolicyTypes is how many directions there are.
const maxPolicyTypes = 2

func validateNetworkPolicy(p *networkingv1.NetworkPolicy) field.ErrorList {
	return policyRules(p, nil).Behind(policyCheck{}.policy(p))
}

// validateNetworkPolicyUpdate leaves addresses alone that were there before,
// wherever they stand now, and labels if those of the policy's own selector were
// wrong before.
func validateNetworkPolicyUpdate(p, old *networkingv1.NetworkPolicy) field.ErrorList {
	c := policyCheck{laxLabels: len(metavalidation.ValidateLabelSelector(&old.Spec.PodSelector, metavalidation.LabelSelectorValidationOptions{}, nil)) > 0}
	had := func(peers []networkingv1.NetworkPolicyPeer) {
		for i := range peers {
			if b := peers[i].IPBlock; b != nil {
				c.had = append(append(c.had, b.CIDR), b.Except...)
			}
		}
	}
	for i := range old.Spec.Ingress {
		had(old.Spec.Ingress[i].From)
	}
	for i := range old.Spec.Egress {
		had(old.Spec.Egress[i].To)
	}
	return policyRules(p, old).Behind(c.policy(p))
}

// policyCheck is what a check may overlook.
type policyCheck struct {
	laxLabels bool
	had       []string // addresses, however written
}

// policyRules are upstream's declared rules: that a block has an address.
func policyRules(p, old *networkingv1.NetworkPolicy) *declared.Rules {
	r, at := declared.For(old), kinds.NewPath("spec")
	blocks := func(peers []networkingv1.NetworkPolicyPeer, at *kinds.Path) {
		for i := range peers {
			if b := peers[i].IPBlock; b != nil && b.CIDR == "" {
				r.Faults.Required(at.Index(i).Child("ipBlock").Child("cidr"), "")
			}
		}
	}
	declared.List(r, p, old, at.Child("ingress"), func(p *networkingv1.NetworkPolicy) []networkingv1.NetworkPolicyIngressRule { return p.Spec.Ingress },
		declared.Each[networkingv1.NetworkPolicyIngressRule]{Check: func(rule, _ *networkingv1.NetworkPolicyIngressRule, at *kinds.Path) {
			blocks(rule.From, at.Child("from"))
		}})
	declared.List(r, p, old, at.Child("egress"), func(p *networkingv1.NetworkPolicy) []networkingv1.NetworkPolicyEgressRule { return p.Spec.Egress },
		declared.Each[networkingv1.NetworkPolicyEgressRule]{Check: func(rule, _ *networkingv1.NetworkPolicyEgressRule, at *kinds.Path) {
			blocks(rule.To, at.Child("to"))
		}})
	return r
}

func (c policyCheck) policy(p *networkingv1.NetworkPolicy) field.ErrorList {
	var f kinds.Faults
	at, spec := kinds.NewPath("spec"), &p.Spec
	c.selector(&f, &spec.PodSelector, at.Child("podSelector"))
	for i := range spec.Ingress {
		here := at.Child("ingress").Index(i)
		checkPolicyPorts(&f, spec.Ingress[i].Ports, here.Child("ports"))
		c.peers(&f, spec.Ingress[i].From, here.Child("from"))
	}
	for i := range spec.Egress {
		here := at.Child("egress").Index(i)
		checkPolicyPorts(&f, spec.Egress[i].Ports, here.Child("ports"))
		c.peers(&f, spec.Egress[i].To, here.Child("to"))
	}
	types := at.Child("policyTypes")
	if len(spec.PolicyTypes) > maxPolicyTypes {
		f.Invalid(types, &spec.PolicyTypes, "may not specify more than two policyTypes")
		return f.List()
	}
	for i, direction := range spec.PolicyTypes {
		kinds.Listed(&f, types.Index(i), direction, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)
	}
	return f.List()
}

func (c policyCheck) selector(f *kinds.Faults, s *metav1.LabelSelector, at *kinds.Path) {
	f.Join(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: c.laxLabels}, at.Field()))
}

func checkPolicyPorts(f *kinds.Faults, ports []networkingv1.NetworkPolicyPort, at *kinds.Path) {
	for i := range ports {
		port, here := &ports[i], at.Index(i)
		if port.Protocol != nil {
			kinds.Listed(f, here.Child("protocol"), *port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
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

// peers: a peer is pods, namespaces, both together, or a range alone.
func (c policyCheck) peers(f *kinds.Faults, peers []networkingv1.NetworkPolicyPeer, at *kinds.Path) {
	for i := range peers {
		peer, here := &peers[i], at.Index(i)
		c.selector(f, peer.PodSelector, here.Child("podSelector"))
		c.selector(f, peer.NamespaceSelector, here.Child("namespaceSelector"))
		if peer.IPBlock != nil {
			c.block(f, peer.IPBlock, here.Child("ipBlock"))
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

func (c policyCheck) block(f *kinds.Faults, b *networkingv1.IPBlock, at *kinds.Path) {
	if !f.NonEmpty(at.Child("cidr"), b.CIDR) {
		return
	}
	f.Join(validation.IsValidCIDRForLegacyField(at.Child("cidr").Field(), b.CIDR, strictCIDRs, c.had))
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return
	}
	for i, cidr := range b.Except {
		here := at.Child("except").Index(i)
		f.Join(validation.IsValidCIDRForLegacyField(here.Field(), cidr, strictCIDRs, c.had))
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
