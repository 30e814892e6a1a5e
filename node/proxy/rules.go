package proxy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Sets that do not follow the services.
const (
	setPods     = "pods"     // prefixes of this node's pods
	setOwn      = "own"      // service addresses that the node answers itself
	setNodes    = "nodes"    // where node ports are served, when limited
	setAffinity = "affinity" // client . protocol . address . port -> endpoint, made by packets
)

// maxAffinity bounds the clients that are remembered for sticky services; more
// get an endpoint without being remembered.
const maxAffinity = 1 << 18

// Every rule works on the same line of four-byte registers:
//
//	client's address | protocol | address | port | index or endpoint's address | port
//
// so that each map's key is a stretch of it, and what one lookup yields is in
// place for the next.
const reg0 = unix.NFT_REG32_00

// layout says where the parts are for one family.
type layout struct {
	family              nftables.TableFamily
	srcOffset, dstOff   uint32 // in the network header
	size                uint32 // of an address, in bytes
	addr                nftables.SetDatatype
	client, proto       uint32 // registers
	address, port, pick uint32
	pickPort            uint32
}

func layoutOf(family uint8) layout {
	l := layout{family: nftables.TableFamilyIPv4, srcOffset: 12, dstOff: 16, size: 4, addr: nftables.TypeIPAddr}
	if family == unix.AF_INET6 {
		l = layout{family: nftables.TableFamilyIPv6, srcOffset: 8, dstOff: 24, size: 16, addr: nftables.TypeIP6Addr}
	}
	words := l.size / 4
	l.client = reg0
	l.proto = l.client + words
	l.address = l.proto + 1
	l.port = l.address + words
	l.pick = l.port + 1
	l.pickPort = l.pick + words
	return l
}

var setNames = [numSets]string{
	setService: "service", setOutside: "outside", setNodePort: "node-port", setNodePortOutside: "node-port-outside",
	setEndpoint: "endpoint", setMember: "member", setMasquerade: "masquerade", setMasqueradeNodePort: "masquerade-node-port",
	setHairpin: "hairpin", setClusterIP: "cluster-ip", setGuarded: "guarded", setAllowed: "allowed",
}

// verdictMap tells whether a set's values are names of chains.
func (s set) verdictMap() bool { return s <= setNodePortOutside }

// sets describes the sets of a table, as making them and changing their
// elements both need.
func (l layout) sets(t *nftables.Table) map[string]*nftables.Set {
	proto, service := nftables.TypeInetProto, nftables.TypeInetService
	full := []nftables.SetDatatype{proto, l.addr, service}
	concat := nftables.MustConcatSetType
	target := concat(l.addr, service)
	all := []*nftables.Set{
		{Name: setNames[setService], IsMap: true, DataType: nftables.TypeVerdict, KeyType: concat(full...)},
		{Name: setNames[setOutside], IsMap: true, DataType: nftables.TypeVerdict, KeyType: concat(full...)},
		{Name: setNames[setNodePort], IsMap: true, DataType: nftables.TypeVerdict, KeyType: concat(proto, service)},
		{Name: setNames[setNodePortOutside], IsMap: true, DataType: nftables.TypeVerdict, KeyType: concat(proto, service)},
		{Name: setNames[setEndpoint], IsMap: true, DataType: target, KeyType: concat(proto, l.addr, service, nftables.TypeMark)},
		{Name: setNames[setMember], KeyType: concat(proto, l.addr, service, l.addr, service)},
		{Name: setNames[setMasquerade], KeyType: concat(full...)},
		{Name: setNames[setMasqueradeNodePort], KeyType: concat(proto, service)},
		{Name: setNames[setHairpin], KeyType: concat(l.addr, l.addr)},
		{Name: setNames[setClusterIP], KeyType: l.addr},
		{Name: setNames[setGuarded], KeyType: concat(full...)},
		{Name: setNames[setAllowed], KeyType: concat(proto, l.addr, service, l.addr), Interval: true},
		{Name: setPods, KeyType: l.addr, Interval: true},
		{Name: setOwn, KeyType: l.addr},
		{Name: setNodes, KeyType: l.addr},
		{Name: setAffinity, IsMap: true, DataType: target, KeyType: concat(l.addr, proto, l.addr, service),
			Dynamic: true, HasTimeout: true, Timeout: 3 * time.Hour, Size: maxAffinity},
	}
	out := make(map[string]*nftables.Set, len(all))
	for _, s := range all {
		s.Table = t
		s.KeyByteOrder = binaryutil.BigEndian
		s.Concatenation = !slices.Contains([]string{setPods, setOwn, setNodes, setNames[setClusterIP]}, s.Name)
		out[s.Name] = s
	}
	return out
}

// builder writes a table's fixed part, and chains, into a transaction.
type builder struct {
	layout
	conn  *nftables.Conn
	table *nftables.Table
	sets  map[string]*nftables.Set
}

// build writes everything that does not follow the services.
func (b *builder) build(cfg *Config) error {
	fixed := map[string][]nftables.SetElement{
		setPods:  intervals(cfg.PodCIDRs, b.family),
		setOwn:   b.singles(cfg.Local),
		setNodes: b.singles(cfg.NodeIPs),
	}
	for _, s := range b.sets {
		if err := b.conn.AddSet(s, fixed[s.Name]); err != nil {
			return err
		}
	}
	b.reject()
	b.rule(b.chain(chainDrop), &expr.Verdict{Kind: expr.VerdictDrop})
	limited := len(fixed[setNodes]) > 0
	b.dispatch(b.base("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest), true, limited)
	b.dispatch(b.base("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest), false, limited)
	b.postrouting(b.base(chainPostrouting, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource))
	return nil
}

// dispatch sends the first packet of a connection to the chain that serves its
// destination. A loopback address is served as a service's own, and only to the
// host's programs: translated packets would get past the kernel's look for such
// addresses from elsewhere (CVE-2020-8558).
func (b *builder) dispatch(c *nftables.Chain, fromOutside, limited bool) {
	ret := &expr.Verdict{Kind: expr.VerdictReturn}
	key := []expr.Any{b.loadProto(), b.loadDst(), b.loadPort()}
	if fromOutside && b.family == nftables.TableFamilyIPv4 {
		b.rule(c, append(b.loopback(expr.CmpOpEq), ret)...)
	}
	b.rule(c, b.loadDst(), b.in(setOwn, b.address), ret)
	b.rule(c, append(slices.Clone(key), b.in(setNames[setGuarded], b.proto), b.load(b.srcOffset, b.pick),
		b.notIn(setNames[setAllowed], b.proto), &expr.Verdict{Kind: expr.VerdictDrop})...)
	if fromOutside {
		b.rule(c, b.outside(append(slices.Clone(key), b.vmap(setOutside, b.proto))...)...)
	}
	b.rule(c, append(slices.Clone(key), b.vmap(setService, b.proto))...)
	b.rule(c, b.loadDst(), b.in(setNames[setClusterIP], b.address),
		&expr.Verdict{Kind: expr.VerdictGoto, Chain: chainReject})

	here := append(b.loopback(expr.CmpOpNeq),
		&expr.Fib{Register: b.client, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: b.client, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)})
	if limited {
		here = []expr.Any{b.loadDst(), b.in(setNodes, b.address)}
	}
	key = []expr.Any{b.loadProto(), b.loadPortAt(b.address)}
	if fromOutside {
		b.rule(c, append(slices.Clone(here), b.outside(append(slices.Clone(key), b.vmap(setNodePortOutside, b.proto))...)...)...)
	}
	b.rule(c, append(append(here, key...), b.vmap(setNodePort, b.proto))...)
}

// outside lets exprs see only what no pod of this node sent.
func (b *builder) outside(exprs ...expr.Any) []expr.Any {
	return append([]expr.Any{b.load(b.srcOffset, b.client), b.notIn(setPods, b.client)}, exprs...)
}

// postrouting gives the node's own address to connections whose answers would
// not come back through it otherwise: those that no pod of this node made, and
// those of a pod to itself, which would drop its own source. What was asked
// for is read from connection tracking, so that nobody's packet marks are
// touched. The rules that go by what was asked for are addMasquerade's.
func (b *builder) postrouting(c *nftables.Chain) {
	masq := &expr.Masq{FullyRandom: true}
	src, dst := b.load(b.srcOffset, reg0), b.load(b.dstOff, reg0+b.size/4)
	b.rule(c, append(b.translated(), src, dst, b.in(setNames[setHairpin], reg0), masq)...)
	if b.family == nftables.TableFamilyIPv4 {
		b.rule(c, append(append(b.translated(), b.withinHost()...), b.loadDst(),
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(b.family), RegAddrMin: b.address})...)
	}
}

// translated matches connections whose destination has been changed.
func (b *builder) translated() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: b.proto},
		&expr.Bitwise{SourceRegister: b.proto, DestRegister: b.proto, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(ctDestinationNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: b.proto, Data: make([]byte, 4)},
	}
}

// foreign matches those of them that no pod of this node made.
func (b *builder) foreign() []expr.Any {
	return append(b.translated(), b.load(b.srcOffset, reg0), b.notIn(setPods, reg0))
}

// withinHost matches what goes from a loopback address to the host itself. It
// gets its destination as its source: of UDP's programs, most answer from
// whatever address is next to the asker's.
func (b *builder) withinHost() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIF, Register: b.address},
		&expr.Cmp{Op: expr.CmpOpEq, Register: b.address, Data: binaryutil.NativeEndian.PutUint32(loopbackInterface)},
		&expr.Payload{DestRegister: b.address, Base: expr.PayloadBaseNetworkHeader, Offset: b.srcOffset, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: b.address, Data: []byte{127}},
	}
}

// loopbackInterface is the index of lo, LOOPBACK_IFINDEX of the kernel.
const loopbackInterface = 1

// ctDestinationNAT is IPS_DST_NAT of the kernel's connection tracking.
const ctDestinationNAT = 1 << 5

// reject refuses at once, so that clients need not wait for a timeout.
func (b *builder) reject() {
	unreachable := uint8(3) // port unreachable
	if b.family == nftables.TableFamilyIPv6 {
		unreachable = 4
	}
	c := b.chain(chainReject)
	b.rule(c, b.loadProto(), &expr.Cmp{Op: expr.CmpOpEq, Register: b.proto, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	b.rule(c, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: unreachable})
}

// picker writes a chain that sends a connection to one of n endpoints.
func (b *builder) picker(p chain) {
	c := b.chain(p.String())
	address := b.loadDst()
	if p.node {
		address = &expr.Immediate{Register: b.address, Data: make([]byte, b.size)}
	}
	key := []expr.Any{b.load(b.srcOffset, b.client), b.loadProto(), address, b.loadPort()}
	offset := uint32(0)
	if p.outside {
		offset = outsideIndex
	}
	random := append(slices.Clone(key),
		&expr.Numgen{Register: b.pick, Modulus: uint32(p.n), Type: unix.NFT_NG_RANDOM, Offset: offset},
		b.lookup(setNames[setEndpoint], b.proto))
	if p.sticky > 0 {
		// The endpoint from last time if it is still one; else forget it and
		// remember another. Remembering fails when the set is full.
		b.rule(c, append(slices.Clone(key), b.lookup(setAffinity, b.client), b.in(setNames[setMember], b.proto),
			b.remember(unix.NFT_DYNSET_OP_UPDATE, p.sticky), b.translate())...)
		b.rule(c, append(slices.Clone(key), b.lookup(setAffinity, b.client), b.remember(dynsetDelete, 0))...)
		b.rule(c, append(slices.Clone(random), b.remember(unix.NFT_DYNSET_OP_ADD, p.sticky), b.translate())...)
	}
	b.rule(c, append(random, b.translate())...)
}

// dynsetDelete is NFT_DYNSET_OP_DELETE.
const dynsetDelete = 2

func (b *builder) remember(op uint32, d time.Duration) expr.Any {
	s := b.sets[setAffinity]
	return &expr.Dynset{SrcRegKey: b.client, SrcRegData: b.pick, SetName: s.Name, SetID: s.ID, Operation: op, Timeout: d}
}

func (b *builder) translate() expr.Any {
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(b.family), RegAddrMin: b.pick, RegProtoMin: b.pickPort, Specified: true}
}

// loopback compares the destination with the family's loopback addresses.
func (b *builder) loopback(op expr.CmpOp) []expr.Any {
	if b.size == 16 {
		return []expr.Any{b.loadDst(), &expr.Cmp{Op: op, Register: b.address, Data: netip.IPv6Loopback().AsSlice()}}
	}
	return []expr.Any{
		&expr.Payload{DestRegister: b.address, Base: expr.PayloadBaseNetworkHeader, Offset: b.dstOff, Len: 1},
		&expr.Cmp{Op: op, Register: b.address, Data: []byte{127}},
	}
}

func (b *builder) base(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Name: name, Table: b.table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority})
}

func (b *builder) chain(name string) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Name: name, Table: b.table})
}

func (b *builder) rule(c *nftables.Chain, exprs ...expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: exprs})
}

func (b *builder) load(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: b.size}
}

func (b *builder) loadDst() expr.Any  { return b.load(b.dstOff, b.address) }
func (b *builder) loadPort() expr.Any { return b.loadPortAt(b.port) }

func (b *builder) loadPortAt(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

func (b *builder) loadProto() expr.Any {
	return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: b.proto}
}

func (b *builder) in(name string, reg uint32) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: name, SetID: b.sets[name].ID}
}

func (b *builder) notIn(name string, reg uint32) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: name, SetID: b.sets[name].ID, Invert: true}
}

// lookup puts the endpoint that the map has into its place.
func (b *builder) lookup(name string, reg uint32) expr.Any {
	return &expr.Lookup{SourceRegister: reg, DestRegister: b.pick, IsDestRegSet: true, SetName: name, SetID: b.sets[name].ID}
}

func (b *builder) vmap(s set, reg uint32) expr.Any {
	name := setNames[s]
	return &expr.Lookup{SourceRegister: reg, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: name, SetID: b.sets[name].ID}
}

func (b *builder) singles(ips []netip.Addr) []nftables.SetElement {
	var out []nftables.SetElement
	for _, ip := range ips {
		if ip.BitLen() == int(b.size)*8 {
			out = append(out, nftables.SetElement{Key: ip.AsSlice()})
		}
	}
	return out
}

// intervals turns prefixes of one family into the elements of an interval set.
func intervals(prefixes []netip.Prefix, family nftables.TableFamily) []nftables.SetElement {
	var out []nftables.SetElement
	for i, p := range prefixes {
		p = p.Masked()
		inside := func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Masked().Contains(p.Addr()) }
		if p.Addr().Is4() != (family == nftables.TableFamilyIPv4) || slices.ContainsFunc(prefixes[:i], inside) {
			continue
		}
		out = append(out, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := lastAddr(p).Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}
