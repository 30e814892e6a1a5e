package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addMasquerade adds to a chain the rule that goes by the service that was asked for,
// in a transaction of its own. The library can load the original destination of a
// connection only by a key that does not say of which family it is; nft, and firewalls
// that are made of it, abort when they list a rule that looks for that in a set.
func (b *builder) addMasquerade(ns int, chain string) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns})
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer conn.Close() //nolint:errcheck // all has been said and answered by then
	rule, err := b.masqueradeRule(chain)
	if err != nil {
		return err
	}
	add := netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append,
		},
		Data: append([]byte{byte(b.family), unix.NFNETLINK_V0, 0, 0}, rule...),
	}
	if _, err := conn.SendMessages([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN), add, edge(unix.NFNL_MSG_BATCH_END)}); err != nil {
		return fmt.Errorf("send rule of chain %q: %w", chain, err)
	}
	if _, err := conn.Receive(); err != nil {
		return fmt.Errorf("add rule to chain %q: %w", chain, err)
	}
	return nil
}

// edge is the first or the last message of a transaction.
func edge(kind netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
	}
}

// masqueradeRule gives the node's own address to translated connections that no pod of
// this node made, if what they asked for is in the set of those that want it.
func (b *builder) masqueradeRule(chain string) ([]byte, error) {
	original, err := b.originalDestination()
	if err != nil {
		return nil, err
	}
	before, err1 := b.marshal(append(b.foreign(), b.loadProto())...)
	after, err2 := b.marshal(&expr.Ct{Key: expr.CtKeyPROTODST, Register: b.port},
		b.in(setNames[setMasquerade], b.proto), &expr.Masq{FullyRandom: true})
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	rule := netlink.NewAttributeEncoder()
	rule.String(unix.NFTA_RULE_TABLE, b.table.Name)
	rule.String(unix.NFTA_RULE_CHAIN, chain)
	rule.Nested(unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.AttributeEncoder) error {
		for _, e := range slices.Concat(before, [][]byte{original}, after) {
			list.Bytes(unix.NLA_F_NESTED|unix.NFTA_LIST_ELEM, e)
		}
		return nil
	})
	return rule.Encode()
}

func (b *builder) marshal(exprs ...expr.Any) ([][]byte, error) {
	var out [][]byte
	for _, e := range exprs {
		data, err := expr.Marshal(byte(b.family), e)
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

// originalDestination loads the address that a connection was made to.
func (b *builder) originalDestination() ([]byte, error) {
	key := uint32(unix.NFT_CT_DST_IP)
	if b.family == nftables.TableFamilyIPv6 {
		key = unix.NFT_CT_DST_IP6
	}
	out := netlink.NewAttributeEncoder()
	out.ByteOrder = binary.BigEndian
	out.String(unix.NFTA_EXPR_NAME, "ct")
	out.Nested(unix.NFTA_EXPR_DATA, func(data *netlink.AttributeEncoder) error {
		data.ByteOrder = binary.BigEndian
		data.Uint32(unix.NFTA_CT_KEY, key)
		data.Uint32(unix.NFTA_CT_DREG, b.address)
		data.Uint8(unix.NFTA_CT_DIRECTION, 0) // of whoever made it, IP_CT_DIR_ORIGINAL
		return nil
	})
	return out.Encode()
}
