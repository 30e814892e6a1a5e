package proxy

import (
	"encoding/binary"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nft and what is made of it abort over a rule that looks for an address of connection
// tracking in a set, if the key does not say of which family the address is.
func TestRulesCanBeListed(t *testing.T) {
	w := newWorld(t)
	one := service("one", "10.96.0.1")
	w.start(one, slice(one, []pod{w.pod("a")}))
	loads := w.tracked()
	if loads[unix.NFT_CT_SRC]+loads[unix.NFT_CT_DST] > 0 {
		t.Errorf("addresses of unknown families are loaded: %v", loads)
	}
	if loads[unix.NFT_CT_DST_IP] != 1 || loads[unix.NFT_CT_DST_IP6] != 1 {
		t.Errorf("original destinations are loaded %v times; once in each family's table wanted", loads)
	}
}

// tracked counts what the node's rules load from connection tracking, by key. It reads
// the kernel's answer by itself: the library does not know all keys.
func (w *world) tracked() map[uint32]int {
	w.t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(w.host)})
	w.must(err)
	defer conn.Close()
	rules, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE,
			Flags: netlink.Request | netlink.Dump,
		},
		Data: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	w.must(err)
	loads := map[uint32]int{}
	for _, rule := range rules {
		for _, list := range w.attributes(rule.Data[4:], unix.NFTA_RULE_EXPRESSIONS) {
			for _, e := range w.attributes(list, unix.NFTA_LIST_ELEM) {
				if string(w.attributes(e, unix.NFTA_EXPR_NAME)[0]) != "ct\x00" {
					continue
				}
				key := w.attributes(w.attributes(e, unix.NFTA_EXPR_DATA)[0], unix.NFTA_CT_KEY)[0]
				loads[binary.BigEndian.Uint32(key)]++
			}
		}
	}
	return loads
}

// attributes are the values of all attributes of a kind.
func (w *world) attributes(data []byte, kind uint16) (values [][]byte) {
	w.t.Helper()
	all, err := netlink.NewAttributeDecoder(data)
	w.must(err)
	for all.Next() {
		if all.Type() == kind {
			values = append(values, all.Bytes())
		}
	}
	w.must(all.Err())
	return values
}
