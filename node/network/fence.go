package network

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// fence makes a pod's port on the bridge one from which only the pod itself speaks:
// frames under another hardware address are dropped and teach the bridge nothing
// (locked, no learning). The port can't be isolated from others: where the kernel
// shows bridged packets to the firewall, a translated packet goes from port to port.
// Hairpin mode lets a pod reach itself. A kernel before 5.18 has no locked ports and
// passes that over.
func (n *Net) fence(port netlink.Link, mac net.HardwareAddr) error {
	index := port.Attrs().Index
	known := &netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP, HardwareAddr: mac}
	if err := n.nl.NeighSet(known); err != nil {
		return fmt.Errorf("make %s known at %q: %w", mac, port.Attrs().Name, err)
	}
	settings := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for attr, value := range map[int]byte{nl.IFLA_BRPORT_MODE: 1, nl.IFLA_BRPORT_LEARNING: 0, nl.IFLA_BRPORT_LOCKED: 1} {
		settings.AddRtAttr(attr, []byte{value})
	}
	err := n.raw.link(unix.RTM_SETLINK, unix.AF_BRIDGE, index, settings)
	if err != nil {
		return fmt.Errorf("settings of port %q: %w", port.Attrs().Name, err)
	}
	return nil
}
