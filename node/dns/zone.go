package dns

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	wire "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
)

const (
	// specification is the version of the Kubernetes DNS specification.
	specification = "1.1.0"
	// maxChain bounds how many names may stand for each other.
	maxChain = 8
	// maxRecords bounds the records of one answer: what a message of 64 KiB has
	// room for.
	maxRecords = 2000
)

// zone answers the names below the cluster's domain, and its addresses' names.
// It waits for nothing and keeps nothing.
type zone struct {
	domain  string // canonical
	ttl     uint32
	records *mirror
	own     []netip.AddrPort // where the server is
}

// found is what there is at a name: records of the type asked for, or a name
// that it stands for. A name can exist without either.
type found struct {
	exists bool
	rrs    []wire.RR
	extra  []wire.RR
	alias  string
}

// answer is nil when q is for somebody else. A chain of names that leaves the
// cluster ends in target, which is for somebody else.
func (z *zone) answer(q wire.Question) (m *wire.Msg, target string) {
	name := wire.CanonicalName(q.Name)
	if ip, ok := reversed(name); ok {
		return z.reverse(q, ip), ""
	}
	if _, ok := below(name, z.domain); !ok {
		return nil, ""
	}
	m = &wire.Msg{MsgHdr: wire.MsgHdr{Authoritative: true}}
	if !z.records.synced() {
		m.Rcode = wire.RcodeServerFailure // no answer is better than a wrong one
		return m, ""
	}
	owner := q.Name // keeps the asker's spelling
	for range maxChain {
		rest, ok := below(wire.CanonicalName(owner), z.domain)
		if !ok {
			return m, owner
		}
		f := z.find(owner, rest, q.Qtype)
		if f.alias == "" {
			return z.finish(m, f), ""
		}
		m.Answer = append(m.Answer, &wire.CNAME{Hdr: header(owner, wire.TypeCNAME, z.ttl), Target: f.alias})
		if q.Qtype == wire.TypeCNAME {
			return m, ""
		}
		owner = f.alias
	}
	m.Rcode, m.Answer = wire.RcodeServerFailure, nil // the chain has no end
	return m, ""
}

// finish adds what was found, or how long its absence may be believed.
func (z *zone) finish(m *wire.Msg, f found) *wire.Msg {
	m.Answer = append(m.Answer, f.rrs...)
	m.Extra = f.extra
	if !f.exists {
		m.Rcode = wire.RcodeNameError
	}
	if len(f.rrs) == 0 {
		m.Ns = []wire.RR{z.soa()}
	}
	return m
}

func (z *zone) soa() wire.RR {
	return &wire.SOA{Hdr: header(z.domain, wire.TypeSOA, z.ttl), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: z.ttl}
}

// find looks at one name, of which rest is the part below the domain.
func (z *zone) find(owner, rest string, kind uint16) found {
	if rest == "" {
		return z.apex(owner, kind)
	}
	l := strings.Split(rest, ".")
	n := len(l)
	switch {
	case rest == "dns-version":
		f := found{exists: true}
		if kind == wire.TypeTXT {
			f.rrs = []wire.RR{&wire.TXT{Hdr: header(owner, wire.TypeTXT, z.ttl), Txt: []string{specification}}}
		}
		return f
	case rest == "svc", rest == "pod", rest == "dns":
		return found{exists: true}
	case rest == "ns.dns":
		return z.addresses(owner, z.ownAddresses(), kind)
	case n == 2 && (l[1] == "svc" || l[1] == "pod"):
		return found{exists: z.records.namespace(l[0])}
	case n == 3 && l[2] == "pod":
		return z.pod(owner, l, kind)
	case n >= 3 && n <= 5 && l[n-1] == "svc":
		return z.service(owner, l, kind)
	}
	return found{}
}

func (z *zone) apex(owner string, kind uint16) found {
	f := found{exists: true}
	switch kind {
	case wire.TypeSOA:
		f.rrs = []wire.RR{z.soa()}
	case wire.TypeNS:
		ns := "ns.dns." + z.domain
		f.rrs = []wire.RR{&wire.NS{Hdr: header(owner, wire.TypeNS, z.ttl), Ns: ns}}
		f.extra = slices.Concat(z.addresses(ns, z.ownAddresses(), wire.TypeA).rrs, z.addresses(ns, z.ownAddresses(), wire.TypeAAAA).rrs)
	}
	return f
}

func (z *zone) ownAddresses() []netip.Addr {
	var out []netip.Addr
	for _, a := range z.own {
		if !a.Addr().IsUnspecified() {
			out = append(out, a.Addr())
		}
	}
	return out
}

// pod is an address written as a name: a-b-c-d, in a namespace that exists.
func (z *zone) pod(owner string, l []string, kind uint16) found {
	ip, err := netip.ParseAddr(strings.ReplaceAll(l[0], "-", "."))
	if err != nil {
		ip, err = netip.ParseAddr(strings.ReplaceAll(l[0], "-", ":"))
	}
	if err != nil || !z.records.namespace(l[1]) {
		return found{}
	}
	return z.addresses(owner, []netip.Addr{ip}, kind)
}

// service is for [host.]name.namespace.svc and _port._protocol.name.namespace.svc.
func (z *zone) service(owner string, l []string, kind uint16) found {
	n := len(l)
	name, namespace := l[n-3], l[n-2]
	svc, ok := z.records.service(namespace, name)
	if !ok {
		return found{}
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		target := wire.Fqdn(svc.Spec.ExternalName)
		if _, valid := wire.IsDomainName(target); n > 3 || !valid || target == "." {
			return found{}
		}
		return found{exists: true, alias: target}
	}
	s := served{zone: z, svc: svc, owner: owner, kind: kind}
	s.base = name + "." + namespace + ".svc." + z.domain
	switch {
	case n == 3:
		return s.whole()
	case n == 5 && strings.HasPrefix(l[0], "_") && strings.HasPrefix(l[1], "_"):
		return s.port(l[0][1:], l[1][1:])
	case n == 4 && strings.HasPrefix(l[0], "_"):
		return found{exists: s.port("", l[0][1:]).exists}
	case n == 4:
		return s.host(l[0])
	}
	return found{}
}

// served is a question about a service.
type served struct {
	*zone
	svc   *corev1.Service
	owner string
	base  string // the service's own name
	kind  uint16
}

func (s served) headless() bool { return len(clusterIPs(s.svc)) == 0 }

// whole is the service's name itself: its addresses, and for whoever asks the
// services at it, all ports.
func (s served) whole() found {
	if s.kind == wire.TypeSRV {
		f := s.port("", "")
		f.exists = f.exists || !s.headless()
		return f
	}
	if !s.headless() {
		return s.addresses(s.owner, clusterIPs(s.svc), s.kind)
	}
	return s.addresses(s.owner, addrs(s.records.endpoints(s.svc.Namespace, s.svc.Name)), s.kind)
}

func (s served) host(name string) found {
	return s.addresses(s.owner, addrs(s.records.host(s.svc.Namespace, s.svc.Name, name)), s.kind)
}

// port finds the ports with a name and protocol; empty stands for any.
func (s served) port(name, proto string) found {
	var f found
	var targets []target
	match := func(n string, p corev1.Protocol) bool {
		return (name == "" || strings.EqualFold(name, n)) && (proto == "" || strings.EqualFold(proto, string(cmp.Or(p, corev1.ProtocolTCP))))
	}
	if !s.headless() {
		for _, p := range s.svc.Spec.Ports {
			if match(p.Name, p.Protocol) {
				targets = append(targets, target{s.base, uint16(p.Port), clusterIPs(s.svc)})
			}
		}
	} else {
		for _, e := range s.records.endpoints(s.svc.Namespace, s.svc.Name) {
			for _, p := range e.ports {
				if p.Port != nil && match(value(p.Name), value(p.Protocol)) {
					targets = append(targets, target{e.host + "." + s.base, uint16(*p.Port), []netip.Addr{e.addr}})
				}
			}
		}
	}
	f.exists = len(targets) > 0
	if s.kind == wire.TypeSRV {
		f.rrs, f.extra = s.srv(targets)
	}
	return f
}

// target is where a port is found.
type target struct {
	name  string
	port  uint16
	addrs []netip.Addr
}

func (s served) srv(targets []target) (rrs, extra []wire.RR) {
	type place struct {
		name string
		port uint16
	}
	seen, named := map[place]bool{}, map[string]map[netip.Addr]bool{}
	weight := max(1, 100/max(1, len(targets)))
	for _, t := range targets[:min(len(targets), maxRecords)] {
		if at := (place{t.name, t.port}); !seen[at] {
			seen[at] = true
			rrs = append(rrs, &wire.SRV{Hdr: header(s.owner, wire.TypeSRV, s.ttl), Weight: uint16(weight), Port: t.port, Target: t.name})
		}
		for _, ip := range t.addrs {
			if named[t.name] == nil {
				named[t.name] = map[netip.Addr]bool{}
			}
			if !named[t.name][ip] {
				named[t.name][ip] = true
				extra = append(extra, s.address(t.name, ip))
			}
		}
	}
	shuffle(rrs)
	return rrs, extra
}

// addresses are those of the family asked for; a name with none at all does
// not exist.
func (z *zone) addresses(owner string, ips []netip.Addr, kind uint16) found {
	f := found{exists: len(ips) > 0}
	for _, ip := range ips {
		if kind == wire.TypeA && ip.Is4() || kind == wire.TypeAAAA && ip.Is6() {
			f.rrs = append(f.rrs, z.address(owner, ip))
		}
	}
	shuffle(f.rrs)
	f.rrs = f.rrs[:min(len(f.rrs), maxRecords)]
	return f
}

func (z *zone) address(owner string, ip netip.Addr) wire.RR {
	if ip.Is4() {
		return &wire.A{Hdr: header(owner, wire.TypeA, z.ttl), A: ip.AsSlice()}
	}
	return &wire.AAAA{Hdr: header(owner, wire.TypeAAAA, z.ttl), AAAA: ip.AsSlice()}
}

// reverse is nil for addresses that the cluster has no name for.
func (z *zone) reverse(q wire.Question, ip netip.Addr) *wire.Msg {
	names := z.records.named(ip)
	if len(names) == 0 {
		return nil
	}
	m := &wire.Msg{MsgHdr: wire.MsgHdr{Authoritative: true}}
	if q.Qtype != wire.TypePTR {
		m.Ns = []wire.RR{z.soa()}
		return m
	}
	for _, name := range names[:min(len(names), maxRecords)] {
		m.Answer = append(m.Answer, &wire.PTR{Hdr: header(q.Name, wire.TypePTR, z.ttl), Ptr: name + "." + z.domain})
	}
	return m
}

// reversed reads the address out of a canonical name under in-addr.arpa or
// ip6.arpa.
func reversed(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		l := strings.Split(rest, ".")
		if len(l) != 4 {
			return netip.Addr{}, false
		}
		ip, err := netip.ParseAddr(l[3] + "." + l[2] + "." + l[1] + "." + l[0])
		return ip, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := 62; i >= 0; i -= 2 {
		b.WriteByte(rest[i])
		if i%8 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	ip, err := netip.ParseAddr(b.String())
	return ip, err == nil
}

func addrs(endpoints []endpoint) []netip.Addr {
	var out []netip.Addr
	for _, e := range endpoints {
		out = append(out, e.addr)
	}
	return out
}

func shuffle(rrs []wire.RR) {
	rand.Shuffle(len(rrs), func(i, j int) { rrs[i], rrs[j] = rrs[j], rrs[i] })
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
