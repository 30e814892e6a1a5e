package network

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// TestQuiet: a pod's interface makes no addresses of its own on either side, with
// which the kernel would speak to all other pods whenever one comes.
func TestQuiet(t *testing.T) {
	w := newWorld(t)
	w.must(w.net.SetPodCIDR(pods4))
	from, _ := w.pod("from")
	to, ips := w.pod("to")
	w.whoami(to, 80)
	if got := w.seen(from, ips[0], 80); got == "" {
		t.Error("no answer from pod to pod")
	}
	addresses := func(name string) (out []string) {
		link, err := netlink.LinkByName(name)
		w.must(err)
		all, err := netlink.AddrList(link, netlink.FAMILY_V6)
		w.must(err)
		for _, a := range all {
			out = append(out, a.String())
		}
		return out
	}
	w.must(within(to.ns, func() error {
		if got := addresses(podInterface); len(got) > 0 {
			t.Errorf("a pod without IPv6 has %v", got)
		}
		return nil
	}))
	w.must(within(w.host.ns, func() error {
		if got := addresses(vethName("to")); len(got) > 0 {
			t.Errorf("the port on the bridge has %v", got)
		}
		return nil
	}))
}
