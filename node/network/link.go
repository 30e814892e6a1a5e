package network

import (
	"errors"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// beforeOthers is a priority ahead of all that changes where frames go: what a pod
// has sent is judged, not what became of it.
var beforeOthers = nftables.ChainPriorityRef(-300)

// guardLink drops the frames that pods send to anybody but the node, which is mac:
// pods reach each other through the node, where their addresses are checked. To
// several at once they may speak. All bridges in the namespace whose ports have our
// names are one node's. A kernel without nftables on bridges fails.
func (n *nat) guardLink(mac net.HardwareAddr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &nftables.Table{Name: n.table, Family: nftables.TableFamilyBridge}
	n.conn.AddTable(t) // so that deleting it cannot fail
	n.conn.DelTable(t)
	n.conn.AddTable(t)
	b := builder{conn: n.conn, table: t, bridge: n.bridge}
	c := b.chain("link", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, beforeOthers)
	const several = 1 // the lowest bit of the first byte
	b.rule(c,
		// By the name of the port, for not every kernel tells that of its bridge here.
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg16},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg16, Data: []byte(portPrefix)},
		&expr.Payload{DestRegister: reg4, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: 1},
		&expr.Bitwise{SourceRegister: reg4, DestRegister: reg4, Len: 1, Mask: []byte{several}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg4, Data: []byte{0}},
		&expr.Payload{DestRegister: reg4, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: uint32(len(mac))}, //nolint:gosec // six
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg4, Data: mac},
		&expr.Verdict{Kind: expr.VerdictDrop})
	return n.commit("table " + n.table + " of the bridge")
}

// openLink takes back what guardLink did, where it could.
func (n *nat) openLink() error {
	t := &nftables.Table{Name: n.table, Family: nftables.TableFamilyBridge}
	n.conn.AddTable(t)
	n.conn.DelTable(t)
	err := n.commit("remove table " + n.table + " of the bridge")
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}
