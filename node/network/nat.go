package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/netfilter"
)

// The sets and maps of a table. Everything that changes with a pod is an
// element of one of them; the rules never change.
const (
	setPods      = "pods"           // prefixes that pods have
	setDirect    = "direct"         // prefixes reached without masquerade
	setHairpin   = "hairpin"        // address . same address, of each pod
	mapPorts     = "host-ports"     // protocol . port -> address . port
	mapAddrPorts = "host-addr-port" // protocol . host address . port -> address . port
)

// natConfig is what the rules are made of.
type natConfig struct {
	pods   []netip.Prefix
	direct []netip.Prefix
}

// nat owns the nftables tables, one for each address family in use. Every
// change is one transaction, so there is no moment with half a table.
type nat struct {
	table, bridge string
	ns            int

	mu       sync.Mutex
	conn     *nftables.Conn
	families []nftables.TableFamily
}

func openNAT(table, bridge string, ns int) (*nat, error) {
	n := &nat{table: table, bridge: bridge, ns: ns}
	return n, n.dial()
}

func (n *nat) dial() (err error) {
	if err := netfilter.Check(); err != nil {
		return err
	}
	if n.conn, err = nftables.New(nftables.WithNetNSFd(n.ns), nftables.AsLasting()); err != nil {
		return err
	}
	// The kernel answers nothing about the packet filter to whom it lets change nothing.
	// Without asking, that would be found out with the first pod, and again with each.
	if _, err = n.conn.ListTablesOfFamily(nftables.TableFamilyIPv4); errors.Is(err, unix.EPERM) {
		n.conn.CloseLasting()
		return fmt.Errorf("this process may not change the network, which takes the capability CAP_NET_ADMIN: %w", err)
	}
	return nil
}

func (n *nat) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conn.CloseLasting()
}

// commit sends what was gathered. After a failure the connection is made anew,
// since answers to the rest of the batch may still be on their way.
func (n *nat) commit(what string) error {
	err := n.conn.Flush()
	if err == nil {
		return nil
	}
	err = netfilter.Why(err, n.ns, n.families...)
	n.conn.CloseLasting()
	if again := n.dial(); again != nil {
		return errors.Join(fmt.Errorf("%s: %w", what, err), again)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// install replaces the tables by ones that hold exactly records.
func (n *nat) install(cfg natConfig, records []record) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.families = nil
	var guarded []builder
	for _, fam := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		t := &nftables.Table{Name: n.table, Family: fam}
		n.conn.AddTable(t) // so that deleting it cannot fail
		n.conn.DelTable(t)
		if !slices.ContainsFunc(cfg.pods, func(p netip.Prefix) bool { return family(p.Addr()) == fam }) {
			continue
		}
		n.families = append(n.families, fam)
		n.conn.AddTable(t)
		b := builder{conn: n.conn, table: t, bridge: n.bridge}
		if err := b.build(cfg); err != nil {
			return err
		}
		if b.guarded != nil {
			guarded = append(guarded, b)
		}
	}
	if err := n.commit("install table " + n.table); err != nil {
		return err
	}
	for _, rec := range records { // one by one: a stale record must not spoil the others
		if len(rec.Conflist) > 0 || rec.Leaving {
			continue
		}
		if err := n.change(rec, n.conn.SetAddElements); err != nil {
			return err
		}
	}
	for i := range guarded {
		guarded[i].sources(guarded[i].guarded)
	}
	return n.commit("keep pods to their own addresses")
}

// add makes rec's addresses and host ports known.
func (n *nat) add(rec record) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.change(rec, n.conn.SetAddElements)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("a host port of sandbox %q is taken by another pod: %w", rec.ID, err)
	}
	return err
}

// del forgets rec. Adding what is to be deleted first makes that succeed
// whether or not it was there.
func (n *nat) del(rec record) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.change(rec, func(s *nftables.Set, e []nftables.SetElement) error {
		if err := n.conn.SetAddElements(s, e); err != nil {
			return err
		}
		return n.conn.SetDeleteElements(s, e)
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) {
		return nil // the table is gone, or the port is another's
	}
	return err
}

func (n *nat) change(rec record, do func(*nftables.Set, []nftables.SetElement) error) error {
	touched := false
	for _, ip := range rec.IPs {
		fam := family(ip)
		if !slices.Contains(n.families, fam) {
			continue
		}
		sets := setsOf(&nftables.Table{Name: n.table, Family: fam})
		for name, elements := range elementsOf(rec, ip) {
			touched = true
			if err := do(sets[name], elements); err != nil {
				return fmt.Errorf("table %s, set %s: %w", n.table, name, err)
			}
		}
	}
	if !touched {
		return nil
	}
	return n.commit("table " + n.table)
}

// present tells whether the tables of all families are there.
func (n *nat) present(families []nftables.TableFamily) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, fam := range families {
		if !slices.Contains(n.families, fam) {
			return false
		}
		tables, err := n.conn.ListTablesOfFamily(fam)
		if err != nil || !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == n.table }) {
			return false
		}
	}
	return true
}

func (n *nat) remove() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, fam := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		t := &nftables.Table{Name: n.table, Family: fam}
		n.conn.AddTable(t)
		n.conn.DelTable(t)
	}
	n.families = nil
	return errors.Join(n.commit("remove table "+n.table), n.openLink())
}

// elementsOf is what one address of a pod adds to each set.
func elementsOf(rec record, ip netip.Addr) map[string][]nftables.SetElement {
	raw := ip.AsSlice()
	out := map[string][]nftables.SetElement{setHairpin: {{Key: append(slices.Clone(raw), raw...)}}}
	for _, p := range rec.Ports {
		proto, err := protocolNumber(p.Protocol)
		if err != nil {
			continue // refused at Attach
		}
		val := append(slices.Clone(raw), port(p.ContainerPort)...)
		key := []byte{proto, 0, 0, 0}
		if !p.HostIP.IsValid() || p.HostIP.IsUnspecified() {
			if !p.HostIP.IsValid() || p.HostIP.Is4() == ip.Is4() || p.HostIP.Is6() {
				out[mapPorts] = append(out[mapPorts], nftables.SetElement{Key: append(key, port(p.HostPort)...), Val: val})
			}
			continue
		}
		if p.HostIP.Is4() != ip.Is4() {
			continue
		}
		key = append(key, p.HostIP.AsSlice()...)
		out[mapAddrPorts] = append(out[mapAddrPorts], nftables.SetElement{Key: append(key, port(p.HostPort)...), Val: val})
	}
	return out
}

func family(ip netip.Addr) nftables.TableFamily {
	if ip.Is4() {
		return nftables.TableFamilyIPv4
	}
	return nftables.TableFamilyIPv6
}

// port is a port as a set's key holds it: padded to a whole register.
func port(p uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, p), 0, 0)
}

func protocolNumber(name string) (byte, error) {
	switch strings.ToLower(name) {
	case "tcp":
		return unix.IPPROTO_TCP, nil
	case "udp":
		return unix.IPPROTO_UDP, nil
	case "sctp":
		return unix.IPPROTO_SCTP, nil
	}
	return 0, fmt.Errorf("protocol %q is not tcp, udp or sctp", name)
}

// families are those the pod CIDRs have.
func (n *Net) families() []nftables.TableFamily {
	var out []nftables.TableFamily
	for _, p := range n.pools {
		out = append(out, family(p.gateway))
	}
	return out
}

func (n *Net) natConfig() natConfig {
	cfg := natConfig{direct: slices.Clone(n.cfg.Direct)}
	for _, p := range n.pools {
		cfg.pods = append(cfg.pods, p.prefix)
		cfg.direct = append(cfg.direct, p.prefix)
	}
	cfg.direct = append(cfg.direct, netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"))
	return cfg
}
