package network

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
)

// Whatever an engine's network is, its pods find the node's addresses.
func TestAnswer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	s, dns, other := newSpace(t), netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("10.97.0.10")
	record := filepath.Join(t.TempDir(), "run", "answers")
	listen := func(at netip.Addr) error {
		l, err := net.Listen("tcp", netip.AddrPortFrom(at, 53).String())
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
		for _, ip := range []netip.Addr{dns, dns, other} { // a second time is as after a kill -9
			if _, err := Answer(record, []netip.Addr{ip}); err != nil {
				return err
			}
		}
		if listen(dns) == nil {
			t.Errorf("%s is left behind by the one that was killed", dns)
		}
		remove, err := Answer(record, []netip.Addr{dns})
		if err != nil {
			return err
		}
		if err := listen(dns); err != nil {
			t.Errorf("nobody can listen at %s: %v", dns, err)
		}
		if err := remove(); err != nil {
			return err
		}
		if listen(dns) == nil || listen(other) == nil {
			t.Errorf("%s or %s is left behind", dns, other)
		}
		return remove() // somebody else may have been faster
	}); err != nil {
		t.Fatal(err)
	}
}
