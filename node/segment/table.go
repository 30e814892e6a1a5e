package segment

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/netfilter"
)

// tableName is that of the nftables tables, one an address family.
const tableName = "sampan-segments"

// chunk is how many elements one message carries: an attribute's length is sixteen bits.
const chunk = 1000

// Registers of four bytes are numbered from 8 on.
const reg = unix.NFT_REG32_00

// table is what the kernel has. Every change replaces it in one transaction; there is
// none while no pod is on a network by name.
type table struct {
	pods []netip.Prefix
	dns  netip.Addr

	conn *nftables.Conn
	// have is what was written last, known that anything was.
	have  rules
	known bool
}

// rules are what one view means to the kernel, in comparable form.
type rules struct {
	fenced, outward, bridged []netip.Addr
	// together are groups of addresses that may reach each other.
	together [][]netip.Addr
}

// rulesOf turns a view into rules.
func rulesOf(v view) rules {
	var r rules
	for _, p := range v.pods {
		r.fenced = append(r.fenced, p.addrs...)
		if v.outward(p) {
			r.outward = append(r.outward, p.addrs...)
		}
	}
	less := func(a, b network) int {
		return strings.Compare(a.namespace+"/"+a.name, b.namespace+"/"+b.name)
	}
	for _, n := range slices.SortedFunc(maps.Keys(v.members), less) {
		if n.name == Bridge {
			r.bridged = append(r.bridged, v.members[n]...)
			continue
		}
		r.together = append(r.together, v.members[n])
	}
	slices.SortFunc(r.bridged, netip.Addr.Compare)
	return r
}

func (r rules) equal(o rules) bool {
	return slices.Equal(r.fenced, o.fenced) && slices.Equal(r.outward, o.outward) && slices.Equal(r.bridged, o.bridged) &&
		slices.EqualFunc(r.together, o.together, slices.Equal[[]netip.Addr])
}

// reaches says whether a pod may send to another, which is so in both directions: what
// the kernel's rules come to.
func (r rules) reaches(a, b netip.Addr) bool {
	fencedA, fencedB := slices.Contains(r.fenced, a), slices.Contains(r.fenced, b)
	if !fencedA && !fencedB {
		return true
	}
	bridge := func(ip netip.Addr, fenced bool) bool { return !fenced || slices.Contains(r.bridged, ip) }
	if bridge(a, fencedA) && bridge(b, fencedB) {
		return true
	}
	return slices.ContainsFunc(r.together, func(group []netip.Addr) bool { return slices.Contains(group, a) && slices.Contains(group, b) })
}

// apply has the kernel keep to a view.
func (t *table) apply(v view) error {
	r := rulesOf(v)
	if t.known && t.have.equal(r) {
		return nil
	}
	if t.conn == nil {
		if err := netfilter.Check(); err != nil {
			if len(r.fenced) == 0 {
				return nil // nobody asks for anything
			}
			return err
		}
		var err error
		if t.conn, err = nftables.New(nftables.AsLasting()); err != nil {
			return err
		}
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		if err := t.write(family, r); err != nil {
			t.known = false
			return errors.Join(err, t.close())
		}
	}
	if err := t.conn.Flush(); err != nil {
		t.known = false
		err = netfilter.Why(err, 0, nftables.TableFamilyIPv4)
		if errors.Is(err, unix.EPERM) && len(r.fenced) == 0 {
			err = nil // who may not change it has not made it either
		}
		return errors.Join(err, t.close()) // answers to the rest of the batch may still be on their way
	}
	t.have, t.known = r, true
	return nil
}

func (t *table) close() error {
	if t.conn == nil {
		return nil
	}
	err := t.conn.CloseLasting()
	t.conn = nil
	return err
}

// write puts one family's table into the transaction.
func (t *table) write(family nftables.TableFamily, r rules) error {
	nft := &nftables.Table{Name: tableName, Family: family}
	t.conn.AddTable(nft) // so that deleting it cannot fail
	t.conn.DelTable(nft)
	w := writer{conn: t.conn, table: nft, src: 12, dst: 16, size: 4, kind: nftables.TypeIPAddr}
	if family == nftables.TableFamilyIPv6 {
		w.src, w.dst, w.size, w.kind = 8, 24, 16, nftables.TypeIP6Addr
	}
	if len(w.own(r.fenced)) == 0 {
		return nil
	}
	t.conn.AddTable(nft)
	pods := slices.DeleteFunc(slices.Clone(t.pods), func(p netip.Prefix) bool { return p.Addr().BitLen() != int(w.size)*8 })
	fenced, outward, bridged := w.set("fenced", r.fenced), w.set("outward", r.outward), w.set("bridged", r.bridged)
	among := t.conn.AddChain(&nftables.Chain{Name: "among", Table: nft})
	forward := t.conn.AddChain(&nftables.Chain{Name: "forward", Table: nft, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	input := t.conn.AddChain(&nftables.Chain{Name: "input", Table: nft, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	for i, group := range r.together {
		set := w.set(fmt.Sprintf("network-%d", i), group)
		w.rule(among, w.in(w.src, set), w.in(w.dst, set), verdict(expr.VerdictAccept))
	}
	w.rule(among, w.in(w.src, bridged), w.in(w.dst, bridged), verdict(expr.VerdictAccept))
	w.rule(among, w.in(w.src, bridged), w.out(w.dst, fenced), verdict(expr.VerdictAccept))
	w.rule(among, w.out(w.src, fenced), w.in(w.dst, bridged), verdict(expr.VerdictAccept))
	w.rule(among, verdict(expr.VerdictDrop))
	for _, side := range []struct{ own, other uint32 }{{w.src, w.dst}, {w.dst, w.src}} {
		for _, p := range pods {
			w.rule(forward, w.in(side.own, fenced), w.within(side.other, p), []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: among.Name}})
		}
		w.rule(forward, w.in(side.own, fenced), w.out(side.own, outward), verdict(expr.VerdictDrop))
	}
	w.input(input, fenced, outward, t.dns)
	return w.err
}

// writer writes one family's table into a transaction.
type writer struct {
	conn           *nftables.Conn
	table          *nftables.Table
	src, dst, size uint32
	kind           nftables.SetDatatype
	err            error
}

// input keeps who has no way out from the host, but for names, and for the answers to
// what the host has asked of it.
func (w *writer) input(c *nftables.Chain, fenced, outward *nftables.Set, dns netip.Addr) {
	confined := slices.Concat(w.in(w.src, fenced), w.out(w.src, outward))
	state := expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	w.rule(c, confined, []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(state), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}, verdict(expr.VerdictAccept))
	if dns.BitLen() == int(w.size)*8 {
		for _, protocol := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			w.rule(c, confined, w.within(w.dst, netip.PrefixFrom(dns, dns.BitLen())), []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{protocol}},
				&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{0, 53}},
			}, verdict(expr.VerdictAccept))
		}
	}
	w.rule(c, confined, verdict(expr.VerdictDrop))
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// own are the addresses of the writer's family.
func (w *writer) own(ips []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(ips), func(ip netip.Addr) bool { return ip.BitLen() != int(w.size)*8 })
}

// set makes a set of addresses.
func (w *writer) set(name string, ips []netip.Addr) *nftables.Set {
	s := &nftables.Set{Table: w.table, Name: name, KeyType: w.kind}
	w.err = errors.Join(w.err, w.conn.AddSet(s, nil))
	for part := range slices.Chunk(w.own(ips), chunk) {
		var elements []nftables.SetElement
		for _, ip := range part {
			elements = append(elements, nftables.SetElement{Key: ip.AsSlice()})
		}
		w.err = errors.Join(w.err, w.conn.SetAddElements(s, elements))
	}
	return s
}

// rule adds one of its parts in a row.
func (w *writer) rule(c *nftables.Chain, parts ...[]expr.Any) {
	w.conn.AddRule(&nftables.Rule{Table: w.table, Chain: c, Exprs: slices.Concat(parts...)})
}

func (w *writer) load(offset uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: w.size}
}

func (w *writer) in(offset uint32, s *nftables.Set) []expr.Any {
	return []expr.Any{w.load(offset), &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID}}
}

func (w *writer) out(offset uint32, s *nftables.Set) []expr.Any {
	return []expr.Any{w.load(offset), &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: true}}
}

// within compares an address with a prefix.
func (w *writer) within(offset uint32, p netip.Prefix) []expr.Any {
	mask := make([]byte, w.size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{w.load(offset),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: w.size, Mask: mask, Xor: make([]byte, w.size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: p.Masked().Addr().AsSlice()}}
}
