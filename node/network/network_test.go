package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

func TestPackets(t *testing.T) {
	w := newWorld(t)
	a, aIPs := w.pod("a", PortMapping{Protocol: "TCP", HostPort: 8080, ContainerPort: 80},
		PortMapping{Protocol: "tcp", HostPort: 8081, ContainerPort: 80, HostIP: host4})
	b, bIPs := w.pod("b")
	w.whoami(a, 80)
	w.whoami(b, 80)
	w.whoami(w.outside, 80)
	gateway := [2]netip.Addr{pods4.Addr().Next(), pods6.Addr().Next()}
	for i, family := range []struct{ host, outside netip.Addr }{{host4, outside4}, {host6, outside6}} {
		for _, c := range []struct {
			what string
			from space
			ip   netip.Addr
			port uint16
			want netip.Addr
		}{
			{"a pod reaches a pod under its own address", a, bIPs[i], 80, aIPs[i]},
			{"and back", b, aIPs[i], 80, bIPs[i]},
			{"and itself", a, aIPs[i], 80, aIPs[i]},
			{"the host reaches a pod", w.host, aIPs[i], 80, gateway[i]},
			{"a pod reaches the world as its host", b, family.outside, 80, family.host},
			{"the world reaches a host port", w.outside, family.host, 8080, family.outside},
			{"the host reaches its own host port", w.host, family.host, 8080, family.host},
			{"a pod reaches a host port", b, family.host, 8080, bIPs[i]},
			{"a pod reaches itself by its host port", a, family.host, 8080, gateway[i]},
		} {
			t.Run(fmt.Sprintf("IPv%d/%s", 4+2*i, c.what), func(t *testing.T) {
				w := *w
				w.t = t
				if got := w.seen(c.from, c.ip, c.port); got != c.want.String() {
					t.Errorf("seen as %s, want %s", got, c.want)
				}
			})
		}
	}
	local := netip.MustParseAddr("127.0.0.1")
	if got := w.seen(w.host, local, 8080); got != gateway[0].String() {
		t.Errorf("host port by 127.0.0.1: seen as %s, want %s", got, gateway[0])
	}
	if got := w.seenAs(w.host, host4, local, 8080); got != host4.String() {
		t.Errorf("host port by 127.0.0.1 from another address: seen as %s, want %s", got, host4)
	}
	if got := w.seen(w.outside, host4, 8081); got != outside4.String() {
		t.Errorf("host port with a host address: seen as %s, want %s", got, outside4)
	}
}

// TestPodsDoNotReachTheHostsLoopback: a pod that sends its packets for 127.0.0.1
// to the host gets nowhere, though the host lets answers in.
func TestPodsDoNotReachTheHostsLoopback(t *testing.T) {
	w := newWorld(t)
	w.whoami(w.host, 81)
	pod, _ := w.pod("a")
	gateway := pods4.Addr().Next()
	var err error
	w.must(within(pod.ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		eth, err := netlink.LinkByName(podInterface)
		if err != nil {
			return err
		}
		own := &netlink.Addr{IPNet: ipNet(netip.MustParseAddr("127.0.0.1"), 8)}
		return errors.Join(netlink.AddrDel(lo, own), sysctl("ipv4/conf/"+podInterface+"/route_localnet", "1"),
			netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway.AsSlice(), Dst: ipNet(netip.MustParseAddr("127.0.0.0"), 8)}))
	}))
	if got := w.seen(pod, gateway, 81); got == "" {
		t.Fatal("the pod cannot send anything")
	}
	w.must(within(pod.ns, func() error {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", "127.0.0.1:81", 500*time.Millisecond); err == nil {
			c.Close()
		}
		return nil
	}))
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("the host's loopback: %v, want no answer", err)
	}
}

func TestHostPortTakenTwice(t *testing.T) {
	w := newWorld(t)
	w.pod("a", PortMapping{Protocol: "udp", HostPort: 53, ContainerPort: 53})
	s := newSpace(t)
	second := Attachment{ID: "b", NetNS: s.path, Ports: []PortMapping{{Protocol: "udp", HostPort: 53, ContainerPort: 5353}}}
	if _, err := w.net.Attach(t.Context(), second); err == nil {
		t.Fatal("two pods have one host port")
	}
	w.clean("b")
	w.must(w.net.Detach(t.Context(), Attachment{ID: "a"})) // its port is free at once
	_, err := w.net.Attach(t.Context(), second)
	w.must(err)
}

// clean fails unless nothing is left of an attachment.
func (w *world) clean(id string) {
	w.t.Helper()
	w.must(w.net.Detach(w.t.Context(), Attachment{ID: id})) // waits for one under way
	if _, err := w.net.nl.LinkByName(vethName(id)); !gone(err) {
		w.t.Errorf("interface of %q: %v, want none", id, err)
	}
	if _, err := os.Stat(w.net.recordPath(id)); !os.IsNotExist(err) {
		w.t.Errorf("record of %q: %v, want none", id, err)
	}
	entries, err := os.ReadDir(filepath.Join(w.cfg.State, "addresses"))
	w.must(err)
	for _, e := range entries {
		if owner, _ := os.ReadFile(filepath.Join(w.cfg.State, "addresses", e.Name())); string(owner) == id {
			w.t.Errorf("address %s still belongs to %q", e.Name(), id)
		}
	}
}

func TestRestartKeepsTheLivingAndFreesTheRest(t *testing.T) {
	w := newWorld(t)
	a, aIPs := w.pod("a", PortMapping{Protocol: "tcp", HostPort: 8080, ContainerPort: 80})
	w.whoami(a, 80)
	leaked := []string{"leaked", "leaked-2", "leaked-3", "leaked-4", "leaked-5"} // they go together
	for _, id := range leaked {
		w.pod(id)
	}
	stray := filepath.Join(w.cfg.State, "addresses", "10.88.0.77")
	w.must(os.WriteFile(stray, []byte("died-between-two-steps"), 0o600))
	w.must(w.net.Close())

	w.open()
	w.must(w.net.Reconcile(t.Context(), []string{"a"}))
	for _, id := range leaked {
		w.clean(id)
	}
	if _, err := os.Stat(stray); !os.IsNotExist(err) {
		t.Errorf("stray address: %v, want it freed", err)
	}
	if got := w.seen(w.outside, host4, 8080); got != outside4.String() {
		t.Errorf("host port after restart: seen as %s", got)
	}
	_, bIPs := w.pod("b")
	if bIPs[0] == aIPs[0] {
		t.Errorf("address %s was given twice", bIPs[0])
	}
}

func TestCheckRepairsABridgeSomebodyDeleted(t *testing.T) {
	w := newWorld(t)
	a, aIPs := w.pod("a")
	b, bIPs := w.pod("b")
	w.whoami(b, 80)
	link, err := w.net.nl.LinkByName(w.net.cfg.Bridge)
	w.must(err)
	w.must(w.net.nl.LinkDel(link))
	w.must(w.net.Check(t.Context()))
	if got := w.seen(a, bIPs[0], 80); got != aIPs[0].String() {
		t.Errorf("after the repair: seen as %s, want %s", got, aIPs[0])
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.pod("a")
	w.must(w.net.Detach(t.Context(), Attachment{ID: "never-attached"}))
	w.must(w.net.Cleanup(t.Context()))
	links, err := w.net.nl.LinkList()
	w.must(err)
	for _, l := range links {
		if name := l.Attrs().Name; name != "lo" && name != "up0" {
			t.Errorf("interface %s stays", name)
		}
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(w.host.ns)))
	w.must(err)
	tables, err := conn.ListTables()
	w.must(err)
	if len(tables) != 0 {
		t.Errorf("%d tables stay", len(tables))
	}
	if _, err := os.Stat(w.cfg.State); !os.IsNotExist(err) {
		t.Errorf("state: %v, want none", err)
	}
}

// TestCleanupRestoresSettings: what the host had before it has again, but for
// what somebody else has set meanwhile.
func TestCleanupRestoresSettings(t *testing.T) {
	w := newWorld(t)
	const v4, v6, ra, other = "ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/up0/accept_ra", "ipv6/conf/lo/accept_ra"
	show := func() string {
		var out []string
		w.must(within(w.host.ns, func() error {
			for _, name := range []string{v4, v6, ra, other} {
				b, err := os.ReadFile(filepath.Join("/proc/sys/net", name))
				if err != nil {
					return err
				}
				out = append(out, strings.TrimSpace(string(b)))
			}
			return nil
		}))
		return strings.Join(out, " ")
	}
	w.must(w.net.Cleanup(t.Context())) // the world's own, for a fresh beginning
	w.must(w.net.Close())
	w.must(within(w.host.ns, func() error {
		return errors.Join(sysctl(v4, "0"), sysctl(v6, "0"), sysctl(ra, "1"), sysctl(other, "1"))
	}))
	before := show()
	w.open()
	if got := show(); got != "1 1 2 2" {
		t.Errorf("while it is there: %s", got)
	}
	w.must(w.net.Close())
	w.open() // a successor finds the settings changed, and knows from what
	w.must(within(w.host.ns, func() error { return sysctl(other, "0") }))
	w.must(w.net.Cleanup(t.Context()))
	if got := show(); before != "0 0 1 1" || got != "0 0 1 0" {
		t.Errorf("settings were %s, are %s", before, got)
	}

	w.must(w.net.Close())
	w.open()
	w.must(within(w.host.ns, func() error { return sysctl(v4, "0") })) // as another that leaves does
	w.must(w.net.Check(t.Context()))
	if got := show(); got[:1] != "1" {
		t.Errorf("forwarding is not repaired: %s", got)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br-other"
	w.must(w.net.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	w.must(w.net.Cleanup(t.Context()))
	if got := show(); got[:1] != "1" {
		t.Errorf("forwarding was switched off though another bridge is there: %s", got)
	}
}

func TestNotReadyWithoutPodCIDR(t *testing.T) {
	n := &world{t: t, host: newSpaceOrSkip(t)}
	n.cfg = Config{State: t.TempDir(), NetNS: n.host.path}
	net, err := Open(n.cfg)
	n.must(err)
	defer net.Close()
	if err := net.Check(t.Context()); !errors.Is(err, ErrNoPodCIDR) {
		t.Errorf("check: %v, want %v", err, ErrNoPodCIDR)
	}
	s := newSpace(t)
	if _, err := net.Attach(t.Context(), Attachment{ID: "a", NetNS: s.path}); !errors.Is(err, ErrNoPodCIDR) {
		t.Errorf("attach: %v, want %v", err, ErrNoPodCIDR)
	}
}

func newSpaceOrSkip(t *testing.T) space {
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	return newSpace(t)
}

func TestIntervalsAreJoined(t *testing.T) {
	var in []netip.Prefix
	for _, s := range []string{"10.1.0.0/24", "10.0.0.0/8", "11.0.0.0/8", "224.0.0.0/3", "fd00::/8"} {
		in = append(in, netip.MustParsePrefix(s))
	}
	var got []string
	for _, e := range intervals(in, nftables.TableFamilyIPv4) {
		ip, _ := netip.AddrFromSlice(e.Key)
		got = append(got, fmt.Sprint(ip, e.IntervalEnd))
	}
	want := []string{"10.0.0.0 false", "12.0.0.0 true", "224.0.0.0 false"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// BenchmarkAttach is the network's part of starting a pod.
func BenchmarkAttach(b *testing.B) {
	w := newWorld(b)
	s := newSpace(b)
	a := Attachment{ID: "a", NetNS: s.path}
	for b.Loop() {
		_, err := w.net.Attach(b.Context(), a)
		w.must(err)
		b.StopTimer()
		w.must(w.net.Detach(b.Context(), a))
		b.StartTimer()
	}
}

// BenchmarkDetach is its part of stopping one.
func BenchmarkDetach(b *testing.B) {
	w := newWorld(b)
	s := newSpace(b)
	a := Attachment{ID: "a", NetNS: s.path}
	for b.Loop() {
		b.StopTimer()
		_, err := w.net.Attach(b.Context(), a)
		w.must(err)
		b.StartTimer()
		w.must(w.net.Detach(b.Context(), a))
	}
}
