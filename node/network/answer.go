package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Answer gives the node addresses that it answers at, as Config.Local does on a bridge
// of ours: they go to its loopback device, where pods of any engine's network reach
// them. The function that is returned takes them away again.
func Answer(addresses []netip.Addr) (func() error, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("loopback device: %w", err)
	}
	remove := func() error {
		var all error
		for _, ip := range addresses {
			err := netlink.AddrDel(lo, &netlink.Addr{IPNet: ipNet(ip, ip.BitLen())})
			if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				all = errors.Join(all, fmt.Errorf("remove address %s: %w", ip, err))
			}
		}
		return all
	}
	for _, ip := range addresses {
		if err := netlink.AddrReplace(lo, &netlink.Addr{IPNet: ipNet(ip, ip.BitLen())}); err != nil {
			return nil, errors.Join(fmt.Errorf("address %s of the loopback device: %w", ip, err), remove())
		}
	}
	return remove, nil
}
