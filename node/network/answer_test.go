package network

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

// Whatever an engine's network is, its pods find the node's addresses.
func TestAnswer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	s, dns := newSpace(t), netip.MustParseAddr("10.96.0.10")
	listen := func() error {
		l, err := net.Listen("tcp", netip.AddrPortFrom(dns, 53).String())
		if err == nil {
			l.Close()
		}
		return err
	}
	if err := within(s.ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		for range 2 { // a second time is as after a kill -9
			if _, err := Answer([]netip.Addr{dns}); err != nil {
				return err
			}
		}
		remove, err := Answer([]netip.Addr{dns})
		if err != nil {
			return err
		}
		if err := listen(); err != nil {
			t.Errorf("nobody can listen at %s: %v", dns, err)
		}
		if err := remove(); err != nil {
			return err
		}
		if listen() == nil {
			t.Errorf("%s is left behind", dns)
		}
		return remove() // somebody else may have been faster
	}); err != nil {
		t.Fatal(err)
	}
}
