package network

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers: nftables numbers sixteen of four bytes from 8 on, and lets the
// same sixty-four bytes be used as four of sixteen, numbered 1 to 4.
const (
	reg16 = 1
	reg4  = unix.NFT_REG32_00
)

// builder writes one table into a transaction.
type builder struct {
	conn   *nftables.Conn
	table  *nftables.Table
	bridge string
	sets   map[string]*nftables.Set
	// guarded is the chain that everything from pods comes through first.
	guarded *nftables.Chain
}

// header is where an address family keeps its addresses.
type header struct {
	src, dst, size uint32
	addr           nftables.SetDatatype
}

func headerOf(fam nftables.TableFamily) header {
	if fam == nftables.TableFamilyIPv4 {
		return header{src: 12, dst: 16, size: 4, addr: nftables.TypeIPAddr}
	}
	return header{src: 8, dst: 24, size: 16, addr: nftables.TypeIP6Addr}
}

// setsOf describes the sets of a table, as making them and changing their
// elements both need.
func setsOf(t *nftables.Table) map[string]*nftables.Set {
	h := headerOf(t.Family)
	target := nftables.MustConcatSetType(h.addr, nftables.TypeInetService)
	sets := []*nftables.Set{
		{Name: setPods, Interval: true, KeyType: h.addr},
		{Name: setDirect, Interval: true, KeyType: h.addr},
		{Name: setHairpin, Concatenation: true, KeyType: nftables.MustConcatSetType(h.addr, h.addr)},
		{Name: mapPorts, Concatenation: true, IsMap: true, DataType: target,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)},
		{Name: mapAddrPorts, Concatenation: true, IsMap: true, DataType: target,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, h.addr, nftables.TypeInetService)},
	}
	out := make(map[string]*nftables.Set, len(sets))
	for _, s := range sets {
		s.Table = t
		s.KeyByteOrder = binaryutil.BigEndian
		out[s.Name] = s
	}
	return out
}

func (b *builder) build(cfg natConfig) error {
	b.sets = setsOf(b.table)
	fixed := map[string][]nftables.SetElement{
		setPods:   intervals(cfg.pods, b.table.Family),
		setDirect: intervals(cfg.direct, b.table.Family),
	}
	for _, name := range []string{setPods, setDirect, setHairpin, mapPorts, mapAddrPorts} {
		if err := b.conn.AddSet(b.sets[name], fixed[name]); err != nil {
			return err
		}
	}
	b.postrouting()
	b.hostPorts("prerouting", nftables.ChainHookPrerouting)
	b.hostPorts("output", nftables.ChainHookOutput)
	b.guard()
	b.noRedirects()
	return nil
}

// postrouting masquerades what leaves for beyond the pods, and a pod that
// reached itself through a translated address: it would drop its own source.
// So would anybody drop what comes from loopback.
func (b *builder) postrouting() {
	c := b.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	h := headerOf(b.table.Family)
	src, dst := b.load(h.src, reg4), b.load(h.dst, reg4)
	b.rule(c, src, b.in(setPods, reg4), dst, b.notIn(setDirect, reg4), &expr.Masq{})
	b.rule(c, src, b.load(h.dst, reg4+h.size/4), b.in(setHairpin, reg4), &expr.Masq{})
	if b.table.Family == nftables.TableFamilyIPv4 {
		b.rule(c, append(append(b.onBridge(expr.MetaKeyOIFNAME), loopback(h.src)...), &expr.Masq{})...)
	}
}

// hostPorts sends what is meant for one of the host's own addresses to the pod
// that asked for the port. The host's programs may use 127.0.0.1 for it; the
// kernel has no such way for ::1.
func (b *builder) hostPorts(name string, hook *nftables.ChainHook) {
	c := b.chain(name, nftables.ChainTypeNAT, hook, nftables.ChainPriorityNATDest)
	h := headerOf(b.table.Family)
	local := []expr.Any{
		&expr.Fib{Register: reg4, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg4, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
	if b.table.Family == nftables.TableFamilyIPv6 {
		local = append(local, b.load(h.dst, reg16),
			&expr.Cmp{Op: expr.CmpOpNeq, Register: reg16, Data: netip.IPv6Loopback().AsSlice()})
	}
	proto := &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg4}
	exact := append(slices.Clone(local), proto, b.load(h.dst, reg4+1), loadPort(reg4+1+h.size/4))
	b.rule(c, append(exact, b.translate(mapAddrPorts, h)...)...)
	any := append(slices.Clone(local), proto, loadPort(reg4+1))
	b.rule(c, append(any, b.translate(mapPorts, h)...)...)
}

// guard is what makes it safe that answers to 127.0.0.1 are let in from the
// bridge (route_localnet): before any translation is undone, nothing that a pod
// sends may be to or from loopback (CVE-2020-8558).
func (b *builder) guard() {
	if b.table.Family != nftables.TableFamilyIPv4 {
		return
	}
	b.guarded = b.chain("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	h := headerOf(b.table.Family)
	for _, field := range []uint32{h.src, h.dst} {
		b.rule(b.guarded, append(append(b.onBridge(expr.MetaKeyIIFNAME), loopback(field)...), &expr.Verdict{Kind: expr.VerdictDrop})...)
	}
}

// sources drops what a pod sends under another's address. The last four bytes of a
// pod's hardware address are its IPv4 address, and the bridge takes from its port
// no other hardware address (fence): so both must be the same, and a pod's. It
// comes after the pods' elements, or their packets would be lost meanwhile.
func (b *builder) sources(c *nftables.Chain) {
	const lastFour = 8 // of the sender's address, in a frame
	b.rule(c, append(b.onBridge(expr.MetaKeyIIFNAME),
		&expr.Payload{DestRegister: reg4, Base: expr.PayloadBaseLLHeader, Offset: lastFour, Len: 4},
		b.load(headerOf(b.table.Family).src, reg4+1), b.notIn(setHairpin, reg4),
		&expr.Verdict{Kind: expr.VerdictDrop})...)
}

// loopback compares an IPv4 address with 127.0.0.0/8.
func loopback(offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg4, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg4, Data: []byte{127}},
	}
}

func (b *builder) onBridge(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, b.bridge)
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg16},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg16, Data: name},
	}
}

func (b *builder) translate(name string, h header) []expr.Any {
	s := b.sets[name]
	return []expr.Any{
		&expr.Lookup{SourceRegister: reg4, DestRegister: reg4, IsDestRegSet: true, SetName: s.Name, SetID: s.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(b.table.Family), RegAddrMin: reg4, RegProtoMin: reg4 + h.size/4, Specified: true},
	}
}

// noRedirects keeps the host from telling a pod of a shorter way to another
// pod: there is one, but it goes past connection tracking.
func (b *builder) noRedirects() {
	c := b.chain("redirects", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	proto, redirect := byte(unix.IPPROTO_ICMP), byte(5)
	if b.table.Family == nftables.TableFamilyIPv6 {
		proto, redirect = unix.IPPROTO_ICMPV6, 137
	}
	b.rule(c, append(b.onBridge(expr.MetaKeyOIFNAME),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg4, Data: []byte{proto}},
		&expr.Payload{DestRegister: reg4, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg4, Data: []byte{redirect}},
		&expr.Verdict{Kind: expr.VerdictDrop})...)
}

func (b *builder) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Name: name, Table: b.table, Type: kind, Hooknum: hook, Priority: prio})
}

func (b *builder) rule(c *nftables.Chain, exprs ...expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: c, Exprs: exprs})
}

func (b *builder) load(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: headerOf(b.table.Family).size}
}

func loadPort(reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

func (b *builder) in(name string, reg uint32) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: name, SetID: b.sets[name].ID}
}

func (b *builder) notIn(name string, reg uint32) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: name, SetID: b.sets[name].ID, Invert: true}
}

// intervals turns the prefixes of one family into the elements of an interval
// set. Prefixes inside others are dropped and neighbours are joined, for the
// kernel refuses overlaps.
func intervals(prefixes []netip.Prefix, fam nftables.TableFamily) []nftables.SetElement {
	type span struct{ from, to netip.Addr } // to is the first address beyond; invalid past the last
	var spans []span
	for _, p := range prefixes {
		if family(p.Addr()) == fam {
			spans = append(spans, span{p.Masked().Addr(), lastAddr(p).Next()})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from.Compare(b.from) })
	var out []nftables.SetElement
	for i := 0; i < len(spans); {
		s := spans[i]
		for i++; i < len(spans) && s.to.IsValid() && spans[i].from.Compare(s.to) <= 0; i++ {
			if to := spans[i].to; !to.IsValid() || s.to.Less(to) {
				s.to = to
			}
		}
		out = append(out, nftables.SetElement{Key: s.from.AsSlice()})
		if !s.to.IsValid() {
			break
		}
		out = append(out, nftables.SetElement{Key: s.to.AsSlice(), IntervalEnd: true})
	}
	return out
}

// lastAddr is the highest address of p.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	ip, _ := netip.AddrFromSlice(b)
	return ip
}
