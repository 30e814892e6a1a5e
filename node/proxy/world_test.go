package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
)

// world is a node with pods on a bridge and a machine beyond it, each in a
// network namespace of its own, and a proxy that works on the node.
type world struct {
	t             testing.TB
	host, outside netns.NsHandle
	api           *clienttest.Memory
	cfg           Config
	pods          int
	// patience is for how long an answer is waited for; a loaded machine needs
	// more than the silence that some tests expect.
	patience time.Duration
}

const (
	hostIP, outsideIP = "192.0.2.1", "192.0.2.2"
	gateway           = "10.88.0.1"

	hostIP6, outsideIP6 = "2001:db8::1", "2001:db8::2"
	gateway6            = "fd88::1"
)

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("the kernel has no IPv6")
	}
	w := &world{t: t, host: newSpace(t), outside: newSpace(t), api: clienttest.NewMemory(), patience: time.Minute}
	w.must(within(w.host, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Flags = "br0", net.FlagUp
		return errors.Join(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: new(false)}), address("br0", gateway+"/24"),
			address("br0", gateway6+"/64"), veth("up0", "up0", w.outside),
			address("up0", hostIP+"/24"), address("up0", hostIP6+"/64"), address("lo", ""), route(outsideIP, "up0"), route(outsideIP6, "up0"),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv4/conf/all/send_redirects", []byte("0"), 0),
			os.WriteFile("/proc/sys/net/ipv4/conf/br0/send_redirects", []byte("0"), 0))
	}))
	w.must(within(w.outside, func() error {
		return errors.Join(address("lo", ""), address("up0", outsideIP+"/24"), address("up0", outsideIP6+"/64"),
			route(hostIP, "up0"), route(hostIP6, "up0"))
	}))
	w.cfg = Config{Transport: w.api, NodeName: "here", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24"), netip.MustParsePrefix("fd88::/64")},
		NetNS: path(w.host), Local: []netip.Addr{netip.MustParseAddr("10.96.0.10")}}
	return w
}

func newSpace(t testing.TB) netns.NsHandle {
	t.Helper()
	made := make(chan netns.NsHandle, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Unshare(unix.CLONE_NEWNET) != nil {
			made <- netns.None()
			return
		}
		ns, err := netns.Get()
		if err != nil {
			ns = netns.None()
		}
		// Addresses are used at once, not after a second's look for duplicates.
		// Where there is no IPv6 there is nothing to wait for.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		made <- ns
	}()
	ns := <-made
	if !ns.IsOpen() {
		t.Fatal("no network namespace")
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func path(ns netns.NsHandle) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns) }

// within runs fn on a thread of the namespace.
func within(ns netns.NsHandle, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // as above
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

func veth(name, peer string, to netns.NsHandle) error {
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: netlink.NsFd(to)})
}

// address gives an interface an address, if any, and sets it up.
func address(name, cidr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil || cidr == "" {
		return errors.Join(err, netlink.LinkSetUp(link))
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	if addr.IP.To4() == nil {
		addr.Flags = unix.IFA_F_NODAD
	}
	return errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
}

func route(via, name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(via), Flags: int(netlink.FLAG_ONLINK)})
}

// pod is a namespace on the bridge whose every TCP and UDP service says its
// name and who asked.
type pod struct {
	name, ip, ip6 string
	ns            netns.NsHandle
}

func (w *world) pod(name string) pod {
	w.t.Helper()
	w.pods++
	p := pod{name, fmt.Sprintf("10.88.0.%d", 10+w.pods), fmt.Sprintf("fd88::%d", 10+w.pods), newSpace(w.t)}
	host := fmt.Sprintf("veth%d", w.pods)
	w.must(within(w.host, func() error {
		if err := errors.Join(veth(host, "eth0", p.ns), address(host, "")); err != nil {
			return err
		}
		link, err := netlink.LinkByName(host)
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(link, bridge), netlink.LinkSetHairpin(link, true))
	}))
	w.must(within(p.ns, func() error {
		return errors.Join(address("lo", ""), address("eth0", p.ip+"/32"), route(gateway, "eth0"),
			address("eth0", p.ip6+"/128"), route(gateway6, "eth0"))
	}))
	w.serve(p.ns, name)
	return p
}

// serve answers on port 80 of a namespace.
func (w *world) serve(ns netns.NsHandle, name string) {
	w.t.Helper()
	w.must(within(ns, func() error {
		l, err := net.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp", ":80")
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { l.Close(); u.Close() })
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				fmt.Fprint(c, name, " ", c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
				c.Close()
			}
		}()
		go func() {
			b := make([]byte, 64)
			for _, from, err := u.ReadFrom(b); err == nil; _, from, err = u.ReadFrom(b) {
				_, _ = u.WriteTo(fmt.Append(nil, name, " ", from.(*net.UDPAddr).AddrPort().Addr().Unmap()), from)
			}
		}()
		return nil
	}))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// ask is the answer to from's connection, or what went wrong with it in a word.
func (w *world) ask(from netns.NsHandle, network, to string) string {
	var answer []byte
	err := within(from, func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), w.patience)
		defer cancel()
		c, err := (&net.Dialer{}).DialContext(ctx, network, to)
		if err != nil {
			return err
		}
		defer c.Close()
		if network == "tcp" {
			answer, err = io.ReadAll(c)
			return err
		}
		answer, err = w.exchange(c)
		return err
	})
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EPERM): // EPERM is what a local UDP sender is told
		return "refused"
	case err != nil && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)):
		return "timeout"
	case err != nil:
		return err.Error()
	}
	return string(answer)
}

// exchange sends a datagram and returns the answer.
func (w *world) exchange(c net.Conn) ([]byte, error) {
	c.SetDeadline(time.Now().Add(w.patience))
	if _, err := c.Write([]byte("?")); err != nil {
		return nil, err
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	return b[:n], err
}

// who is the first word of ask: the endpoint that answered.
func (w *world) who(from netns.NsHandle, network, to string) string {
	word, _, _ := strings.Cut(w.ask(from, network, to), " ")
	return word
}

// started has a proxy with everything in the API server written; each settle
// has it catch up with what was changed since, without waiting.
type started struct {
	*Proxy
	w *world
}

func (w *world) start(objects ...client.Object) *started {
	w.t.Helper()
	w.api.Seed(objects...)
	p, err := New(w.cfg)
	w.must(err)
	done, err := p.open()
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{}, 2)
	go func() { p.services.Run(ctx); ended <- struct{}{} }()
	go func() { p.slices.Run(ctx); ended <- struct{}{} }()
	w.t.Cleanup(func() {
		cancel()
		<-ended
		<-ended
		done()
	})
	<-p.services.Synced()
	<-p.slices.Synced()
	w.must(p.sync(true))
	return &started{p, w}
}

// update writes slices and has the proxy follow.
func (s *started) update(updated ...*discoveryv1.EndpointSlice) {
	s.w.t.Helper()
	for len(s.wake) > 0 {
		<-s.wake
	}
	for _, slice := range updated {
		_, err := client.EndpointSlices.Update(s.w.t.Context(), s.w.api, slice)
		s.w.must(err)
		<-s.wake
	}
	s.w.must(s.sync(false))
}
