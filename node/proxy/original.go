package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addMasquerade adds to a chain the rules that go by the service, and by the node port,
// that was asked for, in a transaction of its own. The library can load the original
// destination of a connection only by a key that does not say of which family it is; nft,
// and firewalls that are made of it, abort when they list a rule that looks for that in a
// set. And it gives the kernel a direction of four bytes, of which that complains in its log.
func (b *builder) addMasquerade(ns int, chain string) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns})
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer conn.Close() //nolint:errcheck // all has been said and answered by then
	rules, err := b.masqueradeRules(chain)
	if err != nil {
		return err
	}
	batch := []netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}
	for _, rule := range rules {
		batch = append(batch, netlink.Message{
			Header: netlink.Header{
				Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE,
				Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append,
			},
			Data: append([]byte{byte(b.family), unix.NFNETLINK_V0, 0, 0}, rule...),
		})
	}
	if _, err := conn.SendMessages(append(batch, edge(unix.NFNL_MSG_BATCH_END))); err != nil {
		return fmt.Errorf("send rules of chain %q: %w", chain, err)
	}
	for answered := 0; answered < len(rules); { // one answer each, or an error
		answers, err := conn.Receive()
		if err != nil {
			return fmt.Errorf("add rules to chain %q: %w", chain, err)
		}
		answered += len(answers)
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

// masqueradeRules give the node's own address to translated connections that no pod of
// this node made, if what they asked for is in the sets of those that want it.
func (b *builder) masqueradeRules(chain string) ([][]byte, error) {
	address := uint32(unix.NFT_CT_DST_IP)
	if b.family == nftables.TableFamilyIPv6 {
		address = unix.NFT_CT_DST_IP6
	}
	service, err1 := b.masqueradeRule(chain, setMasquerade, original{address, b.address}, original{unix.NFT_CT_PROTO_DST, b.port})
	nodePort, err2 := b.masqueradeRule(chain, setMasqueradeNodePort, original{unix.NFT_CT_PROTO_DST, b.address})
	return [][]byte{service, nodePort}, errors.Join(err1, err2)
}

// original is a part of what a connection was made to, and the register that it goes to.
type original struct{ key, register uint32 }

func (b *builder) masqueradeRule(chain string, wants set, asked ...original) ([]byte, error) {
	exprs, err1 := b.marshal(append(b.foreign(), b.loadProto())...)
	for _, o := range asked {
		loaded, err := o.marshal()
		err1 = errors.Join(err1, err)
		exprs = append(exprs, loaded)
	}
	after, err2 := b.marshal(b.in(setNames[wants], b.proto), &expr.Masq{FullyRandom: true})
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	rule := netlink.NewAttributeEncoder()
	rule.String(unix.NFTA_RULE_TABLE, b.table.Name)
	rule.String(unix.NFTA_RULE_CHAIN, chain)
	rule.Nested(unix.NFTA_RULE_EXPRESSIONS, func(list *netlink.AttributeEncoder) error {
		for _, e := range append(exprs, after...) {
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

// marshal is the expression that loads it.
func (o original) marshal() ([]byte, error) {
	out := netlink.NewAttributeEncoder()
	out.ByteOrder = binary.BigEndian
	out.String(unix.NFTA_EXPR_NAME, "ct")
	out.Nested(unix.NFTA_EXPR_DATA, func(data *netlink.AttributeEncoder) error {
		data.ByteOrder = binary.BigEndian
		data.Uint32(unix.NFTA_CT_KEY, o.key)
		data.Uint32(unix.NFTA_CT_DREG, o.register)
		data.Uint8(unix.NFTA_CT_DIRECTION, 0) // of whoever made it, IP_CT_DIR_ORIGINAL
		return nil
	})
	return out.Encode()
}
