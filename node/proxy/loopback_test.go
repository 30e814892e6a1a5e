package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeLoopback lets an interface of the current namespace take and send
// packets from and to 127.0.0.0/8.
func routeLoopback(name string) error {
	return os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/route_localnet", []byte("1"), 0)
}

// guard drops what comes in from the bridge from or to 127.0.0.0/8, before any
// translation is undone.
func (w *world) guard() {
	w.t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(int(w.host)))
	w.must(err)
	table := conn.AddTable(&nftables.Table{Name: "guard", Family: nftables.TableFamilyIPv4})
	c := conn.AddChain(&nftables.Chain{Name: "guard", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
	for _, offset := range []uint32{12, 16} { // source, destination
		conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("br0\x00")},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	w.must(conn.Flush())
}

func TestLoopback(t *testing.T) {
	w := newWorld(t)
	w.must(within(w.host, func() error { return routeLoopback("br0") }))
	w.guard()
	w.cfg.Loopback = true
	w.cfg.NodeIPs = append(w.cfg.NodeIPs, addresses([]string{hostIP}, unix.AF_INET)...)
	a, b := w.pod("a"), w.pod("b")
	w.serve(w.outside, "o")
	w.serve(w.host, "host")
	one := service("one", "10.96.0.1", nodePort(30080))
	own := service("own", "10.96.0.2", nodePort(30081))
	far := service("far", "10.96.0.3", nodePort(30082))
	both := service("both", "10.96.0.4", nodePort(30083), externalLocal)
	s := w.start(one, slice(one, []pod{a}), own, slice(own, []pod{{ip: hostIP}}), far, slice(far, nil, outsideIP),
		both, slice(both, []pod{a}, outsideIP))
	for _, c := range []struct{ what, to, want string }{
		{"the host reaches a node port", "127.0.0.1:30080", "a " + gateway},
		{"and one that leads to the host itself", "127.0.0.1:30081", "host " + hostIP},
		{"an endpoint elsewhere is refused", "127.0.0.1:30082", "refused"},
		{"though the host's own address leads there", hostIP + ":30082", "o " + hostIP},
		{"what is here is used", "127.0.0.1:30083", "a " + gateway},
		{"other loopback addresses serve nothing", "127.0.0.2:30080", "refused"},
		{"nor other ports", "127.0.0.1:30079", "refused"},
		{"the host's programs keep theirs", "127.0.0.1:80", "host 127.0.0.1"},
	} {
		for _, network := range []string{"tcp", "udp"} {
			for range 8 { // with two endpoints, one could be lucky once
				if got := w.ask(w.host, network, c.to); got != c.want {
					t.Errorf("%s/%s: %q, want %q", c.what, network, got, c.want)
					break
				}
			}
		}
	}
	var conn net.Conn
	w.must(within(w.host, func() (err error) { conn, err = net.Dial("udp", "127.0.0.1:30080"); return err }))
	defer conn.Close()
	for _, p := range []pod{b, a, b} {
		s.update(slice(one, []pod{p}))
		if got, err := w.exchange(conn); err != nil || !strings.HasPrefix(string(got), p.name+" ") {
			t.Errorf("a client that keeps its port: %q answers (%v), want %s", got, err, p.name)
		}
	}
}

// Without the promise of a guard, 127.0.0.1 has no node ports.
func TestLoopbackIsOffUnlessPromised(t *testing.T) {
	w := newWorld(t)
	w.must(within(w.host, func() error { return routeLoopback("br0") }))
	a := w.pod("a")
	svc := service("s", "10.96.0.1", nodePort(30080))
	w.start(svc, slice(svc, []pod{a}))
	for _, network := range []string{"tcp", "udp"} {
		if got := w.ask(w.host, network, "127.0.0.1:30080"); got != "refused" {
			t.Errorf("%s: %q", network, got)
		}
	}
}

// Whoever sends packets for 127.0.0.1 to the node from elsewhere gets no
// service: not with the guard, and not even if that and the kernel's own look
// for such packets were gone.
func TestLoopbackIsNotForOthers(t *testing.T) {
	w := newWorld(t)
	w.must(within(w.host, func() error { return routeLoopback("br0") }))
	w.cfg.Loopback = true
	a, b := w.pod("a"), w.pod("b")
	svc := service("s", "10.96.0.1", nodePort(30080))
	w.start(svc, slice(svc, []pod{a}))
	for _, c := range []struct {
		from         pod
		link, router string
	}{{b, "eth0", gateway}, {pod{name: "outside", ns: w.outside}, "up0", hostIP}} {
		w.must(within(c.from.ns, func() error { return astray(c.link, c.router) }))
	}
	expect := func(from pod, want string) {
		t.Helper()
		w.patience = time.Minute
		if want == "timeout" {
			w.patience = 300 * time.Millisecond
		}
		for _, network := range []string{"tcp", "udp"} {
			if got := w.ask(from.ns, network, "127.0.0.1:30080"); got != want {
				t.Errorf("%s/%s: %q, want %q", from.name, network, got, want)
			}
		}
	}
	outside := pod{name: "outside", ns: w.outside}
	expect(b, "refused") // it gets to the host's loopback, where nobody listens
	w.guard()
	expect(b, "timeout")
	expect(outside, "timeout")
	w.must(within(w.host, func() error { return routeLoopback("up0") }))
	expect(outside, "refused")
}

// astray sends what is for 127.0.0.0/8 to a router.
func astray(link, router string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	out, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	own, err := netlink.ParseAddr("127.0.0.1/8")
	if err != nil {
		return err
	}
	err = errors.Join(netlink.AddrDel(lo, own), routeLoopback(link), netlink.RouteAdd(&netlink.Route{
		LinkIndex: out.Attrs().Index, Gw: net.ParseIP(router), Dst: &net.IPNet{IP: net.IPv4(127, 0, 0, 0), Mask: own.Mask}, Flags: int(netlink.FLAG_ONLINK)}))
	if err != nil {
		return fmt.Errorf("send 127.0.0.0/8 by %s: %w", link, err)
	}
	return nil
}
