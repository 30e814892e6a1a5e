package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// maxEndpoints bounds the endpoints behind one address and port; what is more
// gets no traffic. Half of what the index of an endpoint has room for.
const maxEndpoints = 1 << 15

// place is where a front stands.
type place uint8

const (
	// atAddress takes what is sent to an address of the service's own.
	atAddress place = iota
	// atNode takes what is sent to any address of this node.
	atNode
	// atAddressOutside and atNodeOutside come before them for whatever was sent
	// neither by a pod of this node nor by the node itself.
	atAddressOutside
	atNodeOutside
)

func (p place) node() bool    { return p == atNode || p == atNodeOutside }
func (p place) outside() bool { return p == atAddressOutside || p == atNodeOutside }

// front is an address and port at which a service is reached. At a node's
// places addr is the family's unspecified address.
type front struct {
	place place
	proto uint8
	to    netip.AddrPort
}

// backing is what happens to a connection to a front.
type backing struct {
	// endpoints share the connections equally; sorted, without duplicates.
	endpoints []netip.AddrPort
	// drop, when there are no endpoints, is silence instead of a refusal:
	// there are some elsewhere, and this node is only asked by mistake.
	drop bool
	// sticky is for how long a client keeps its endpoint; 0 is not at all.
	sticky time.Duration
	// masquerade gives connections that do not come from this node's pods the
	// node's own source address, so that answers find back.
	masquerade bool
	// clusterIP makes the address refuse what no port of it takes.
	clusterIP bool
	// sources, when not empty, are the only ones that may connect.
	sources []netip.Prefix
}

// site is what a plan needs to know of the node.
type site struct {
	name     string
	zone     string  // "" when the node has not said
	families []uint8 // of unix.AF_INET, unix.AF_INET6
	pods     []netip.Prefix
	local    []netip.Addr
	nodes    []netip.Addr
	loopback bool // node ports are served at 127.0.0.1
}

func (s *site) has(ip netip.Addr) bool { return slices.Contains(s.families, familyOf(ip)) }

func (s *site) pod(ip netip.Addr) bool {
	return slices.ContainsFunc(s.pods, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func familyOf(ip netip.Addr) uint8 {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func unspecified(family uint8) netip.Addr {
	if family == unix.AF_INET {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// plan says what this node does for one service, given all its slices. It is
// pure. Headless and ExternalName services need nothing.
func plan(svc *corev1.Service, all []*discoveryv1.EndpointSlice, s *site) map[front]backing {
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	p := planner{site: s, svc: svc, slices: all, out: map[front]backing{}}
	for i := range svc.Spec.Ports {
		for _, family := range s.families {
			p.port(&svc.Spec.Ports[i], family)
		}
	}
	return p.out
}

type planner struct {
	site   *site
	svc    *corev1.Service
	slices []*discoveryv1.EndpointSlice
	out    map[front]backing
}

func (p *planner) port(port *corev1.ServicePort, family uint8) {
	proto, ok := protocolNumber(port.Protocol)
	if !ok {
		return
	}
	known := p.endpoints(port, family)
	everywhere := usable(known, p.site.preferred(known))
	here := usable(known, func(e *endpoint) bool {
		return e.NodeName != nil && *e.NodeName == p.site.name
	})
	sticky := stickiness(p.svc)
	cluster := backing{endpoints: everywhere, sticky: sticky, masquerade: true}
	local := backing{endpoints: here, sticky: sticky, drop: len(everywhere) > 0}

	internal := cluster
	if policy := p.svc.Spec.InternalTrafficPolicy; policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal {
		internal = local
		internal.masquerade = true
	}
	internal.clusterIP = true
	for _, ip := range addresses(clusterIPs(p.svc), family) {
		p.add(front{atAddress, proto, netip.AddrPortFrom(ip, uint16(port.Port))}, internal)
	}

	onlyHere := p.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	external := func(at, outside place, to netip.AddrPort, sources []netip.Prefix) {
		c, l := cluster, local
		c.sources, l.sources = sources, sources
		if onlyHere {
			c.masquerade = false
			p.add(front{outside, proto, to}, l)
		}
		p.add(front{at, proto, to}, c)
	}
	for _, ip := range addresses(p.svc.Spec.ExternalIPs, family) {
		external(atAddress, atAddressOutside, netip.AddrPortFrom(ip, uint16(port.Port)), nil)
	}
	for _, ip := range addresses(balancerIPs(p.svc), family) {
		external(atAddress, atAddressOutside, netip.AddrPortFrom(ip, uint16(port.Port)), sourceRanges(p.svc, family))
	}
	if port.NodePort != 0 && p.serves(family) {
		external(atNode, atNodeOutside, netip.AddrPortFrom(unspecified(family), uint16(port.NodePort)), nil)
		if p.site.loopback && family == unix.AF_INET {
			p.add(front{atAddress, proto, netip.AddrPortFrom(loopback, uint16(port.NodePort))}, p.near(cluster))
		}
	}
}

// loopback is where node ports are for the node's own programs, if anywhere.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// near keeps those of b's endpoints that a packet from 127.0.0.1 may be sent
// to. What is left of none is refused, not silence: whoever asks is on this node.
func (p *planner) near(b backing) backing {
	b.endpoints = slices.DeleteFunc(slices.Clone(b.endpoints), func(e netip.AddrPort) bool {
		return !p.site.pod(e.Addr()) && !slices.Contains(p.site.nodes, e.Addr())
	})
	return b
}

func (p *planner) add(f front, b backing) {
	if !slices.Contains(p.site.local, f.to.Addr()) {
		p.out[f] = b
	}
}

// serves tells whether the service has the family; one that says nothing has
// that of its address.
func (p *planner) serves(family uint8) bool {
	return len(addresses(clusterIPs(p.svc), family)) > 0
}

// reachable refuses endpoints that would turn the node against itself
// (CVE-2021-25740 and its like).
func reachable(ip netip.Addr) bool {
	return !ip.IsLoopback() && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLinkLocalUnicast()
}

// portOf is the number that a service's port has in a slice: each slice has
// resolved named target ports for its own endpoints.
func portOf(slice *discoveryv1.EndpointSlice, port *corev1.ServicePort) (uint16, bool) {
	for _, p := range slice.Ports {
		name, proto := "", corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			proto = *p.Protocol
		}
		if p.Port != nil && name == port.Name && proto == cmp.Or(port.Protocol, corev1.ProtocolTCP) {
			return uint16(*p.Port), *p.Port > 0 && *p.Port < 1<<16
		}
	}
	return 0, false
}

// stickiness is for how long a client keeps its endpoint: three hours unless
// the service says otherwise.
func stickiness(svc *corev1.Service) time.Duration {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return time.Duration(seconds) * time.Second
}

func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs
	}
	return []string{svc.Spec.ClusterIP}
}

// balancerIPs leaves out those whose balancer wants to see the traffic itself.
func balancerIPs(svc *corev1.Service) []string {
	var out []string
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IP != "" && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			out = append(out, in.IP)
		}
	}
	return out
}

// sourceRanges are the family's; one that matches nothing stands for ranges
// that are all of the other family.
func sourceRanges(svc *corev1.Service, family uint8) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range svc.Spec.LoadBalancerSourceRanges {
		prefix, err := netip.ParsePrefix(s)
		if err == nil && familyOf(prefix.Addr()) == family {
			out = append(out, prefix.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return cmp.Compare(a.Bits(), b.Bits()) })
	wide := out[:0]
	for _, p := range out { // the kernel refuses ranges inside others
		if !slices.ContainsFunc(wide, func(w netip.Prefix) bool { return w.Contains(p.Addr()) }) {
			wide = append(wide, p)
		}
	}
	out = wide
	if len(out) == 0 && len(svc.Spec.LoadBalancerSourceRanges) > 0 {
		nobody := unspecified(family)
		out = append(out, netip.PrefixFrom(nobody, nobody.BitLen()))
	}
	return out
}

func addresses(in []string, family uint8) []netip.Addr {
	var out []netip.Addr
	for _, s := range in {
		ip, err := netip.ParseAddr(s)
		if err == nil && familyOf(ip.Unmap()) == family && !ip.IsUnspecified() && !ip.IsLoopback() {
			out = append(out, ip.Unmap())
		}
	}
	return out
}

func protocolNumber(p corev1.Protocol) (uint8, bool) {
	switch cmp.Or(p, corev1.ProtocolTCP) {
	case corev1.ProtocolTCP:
		return unix.IPPROTO_TCP, true
	case corev1.ProtocolUDP:
		return unix.IPPROTO_UDP, true
	case corev1.ProtocolSCTP:
		return unix.IPPROTO_SCTP, true
	}
	return 0, false
}
