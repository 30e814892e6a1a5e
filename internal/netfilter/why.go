package netfilter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// part is something of the packet filter that a kernel may lack, since it is built as a
// module of its own.
type part struct {
	name string
	// module is what has it; %s stands for the family.
	module string
	rule   expr.Any
	// nat: the chain is one that translates addresses.
	nat bool
}

// parts are those that rules of ours use.
var parts = []part{
	{name: "the translation of addresses", module: "nft_chain_nat", rule: &expr.Verdict{Kind: expr.VerdictAccept}, nat: true},
	{name: "nat", module: "nft_nat", rule: &expr.NAT{Type: expr.NATTypeSourceNAT, RegAddrMin: unix.NFT_REG_1}, nat: true},
	{name: "masquerade", module: "nft_masq", rule: &expr.Masq{}, nat: true},
	{name: "reject", module: "nft_reject_%s", rule: &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}},
	{name: "fib", module: "nft_fib_%s", rule: &expr.Fib{Register: unix.NFT_REG32_00, ResultADDRTYPE: true, FlagDADDR: true}},
	{name: "ct", module: "nft_ct", rule: &expr.Ct{Key: expr.CtKeySTATUS, Register: unix.NFT_REG32_00}},
	{name: "numgen", module: "nft_numgen", rule: &expr.Numgen{Register: unix.NFT_REG32_00, Modulus: 2, Type: unix.NFT_NG_RANDOM}},
}

// Why adds to a refused transaction's error what of the packet filter the kernel lacks
// and which module may have it. The kernel itself says no more than "no such file or
// directory", of whatever is missing. It is asked by transactions that leave nothing;
// ns is the descriptor of a network namespace, 0 for the current one. An error that has
// another cause comes back as it is.
func Why(err error, ns int, families ...nftables.TableFamily) error {
	return why(err, ns, families, parts)
}

func why(err error, ns int, families []nftables.TableFamily, parts []part) error {
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	var names, modules []string
	for _, family := range families {
		for _, p := range parts {
			if !errors.Is(p.ask(ns, family), unix.ENOENT) {
				continue
			}
			module := p.module
			if strings.Contains(module, "%s") {
				module = fmt.Sprintf(module, version(family))
			}
			names = append(names, fmt.Sprintf("%q for %s", p.name, version(family)))
			modules = append(modules, module)
		}
	}
	if len(names) == 0 {
		return err
	}
	return fmt.Errorf("this kernel's packet filter lacks %s (modprobe -a %s may give it): %w", strings.Join(names, ", "), strings.Join(modules, " "), err)
}

// ask has the kernel make a table with a rule and remove it again, at once: ENOENT is
// for a kernel that lacks the part.
func (p part) ask(ns int, family nftables.TableFamily) error {
	conn, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: "sampan-asks", Family: family}
	chain := &nftables.Chain{Name: "asks", Table: table}
	if p.nat {
		chain.Type, chain.Hooknum, chain.Priority = nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource
	}
	rule := []expr.Any{p.rule}
	if n, is := p.rule.(*expr.NAT); is { // it takes an address of the family
		of, size := *n, 4
		if of.Family = uint32(family); family == nftables.TableFamilyIPv6 {
			size = 16
		}
		rule = []expr.Any{&expr.Immediate{Register: n.RegAddrMin, Data: make([]byte, size)}, &of}
	}
	conn.AddTable(table)
	conn.AddChain(chain)
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	conn.DelTable(table)
	return conn.Flush()
}

func version(family nftables.TableFamily) string {
	if family == nftables.TableFamilyIPv6 {
		return "ipv6"
	}
	return "ipv4"
}
