package script

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// otherAddress is the address of a story's second machine.
const otherAddress = "198.51.100.11"

// other is a second machine: a network namespace at the far end of the story's
// uplink, with a sampan of its own.
type other struct {
	*cluster
	ns netns.NsHandle
}

// newOther makes the machine.
func newOther(t *testing.T) (*other, error) {
	o := &other{cluster: newCluster(t)}
	peer, err := netlink.LinkByName(uplinkPeer)
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer here.Close()
	if o.ns, err = netns.New(); err != nil {
		return nil, err
	}
	if err := netns.Set(here); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetNsFd(peer, int(o.ns)); err != nil {
		return nil, err
	}
	return o, o.within(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		up, err := netlink.LinkByName(uplinkPeer)
		if err != nil {
			return err
		}
		address := &net.IPNet{IP: net.ParseIP(otherAddress).To4(), Mask: net.CIDRMask(24, 32)}
		return errors.Join(
			netlink.LinkSetUp(lo), netlink.LinkSetUp(up), netlink.AddrAdd(up, &netlink.Addr{IPNet: address}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP(gateway)}),
		)
	})
}

// within does something on the machine: what it starts, starts there.
func (o *other) within(do func() error) error {
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer here.Close()
	if err := netns.Set(o.ns); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = do()
	if back := netns.Set(here); back != nil {
		return errors.Join(err, back) // the thread stays locked, and ends with the test
	}
	runtime.UnlockOSThread()
	return err
}

// there runs a command on the second machine, which the first such command makes.
func (c *cluster) there(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: there COMMAND...")
	}
	if c.other == nil {
		o, err := newOther(c.t)
		ts.Check(err)
		c.other = o
	}
	data, kubeconfig := ts.Getenv("DATA"), ts.Getenv("KUBECONFIG")
	ts.Setenv("DATA", c.other.data)
	defer ts.Setenv("DATA", data)
	ts.Setenv("KUBECONFIG", filepath.Join(data, "kubeconfig"))
	defer ts.Setenv("KUBECONFIG", kubeconfig)
	err := c.other.within(func() error { return ts.Exec(args[0], args[1:]...) })
	if (err != nil) != neg {
		ts.Fatalf("%s, there: %v", args[0], err)
	}
}

// leave takes the second machine down, if there is one.
func (c *cluster) leave(t *testing.T) {
	if c.other == nil {
		return
	}
	err := c.other.within(func() error {
		c.other.end(t)
		return nil
	})
	if err = errors.Join(err, c.other.ns.Close()); err != nil {
		t.Error(fmt.Errorf("the second machine: %w", err))
	}
}
