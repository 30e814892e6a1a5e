package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// world is a host with a pod network and a machine beyond it, each in a
// namespace of its own.
type world struct {
	t             testing.TB
	host, outside space
	net           *Net
	cfg           Config
}

type space struct {
	ns   netns.NsHandle
	path string
}

var (
	host4, outside4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	host6, outside6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	pods4, pods6    = netip.MustParsePrefix("10.88.0.0/24"), netip.MustParsePrefix("fd88::/64")
)

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	w := &world{t: t, host: newSpace(t), outside: newSpace(t)}
	w.wire()
	w.cfg = Config{State: filepath.Join(t.TempDir(), "network"), NetNS: w.host.path, Forwarding: true,
		CNIConfDir: t.TempDir(), CNIBinDirs: []string{t.TempDir()}}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	n, err := Open(w.cfg)
	w.must(err)
	w.net = n
	w.t.Cleanup(func() { n.Close() })
	w.must(n.SetPodCIDR(pods4, pods6))
}

func newSpace(t testing.TB) space {
	t.Helper()
	made := make(chan netns.NsHandle, 1)
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.Get()
		if err = errors.Join(err, ns.Close(), unix.Unshare(unix.CLONE_NEWNET)); err == nil {
			ns, err = netns.Get()
		}
		failed <- err
		made <- ns
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	ns := <-made
	t.Cleanup(func() { ns.Close() })
	return space{ns, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns)}
}

// wire joins host and outside; the outside knows no way to any pod.
func (w *world) wire() {
	w.t.Helper()
	w.must(within(w.host.ns, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "up0", PeerNamespace: netlink.NsFd(w.outside.ns)})
	}))
	for s, ips := range map[space][]netip.Addr{w.host: {host4, host6}, w.outside: {outside4, outside6}} {
		w.must(within(s.ns, func() error {
			var errs []error
			for _, name := range []string{"lo", "up0"} {
				link, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				errs = append(errs, netlink.LinkSetUp(link))
				for _, ip := range ips {
					if name == "up0" {
						errs = append(errs, netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(ip, ip.BitLen()-8), Flags: unix.IFA_F_NODAD}))
					}
				}
			}
			return errors.Join(errs...)
		}))
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pod(id string, ports ...PortMapping) (space, []netip.Addr) {
	w.t.Helper()
	s := newSpace(w.t)
	res, err := w.net.Attach(w.t.Context(), Attachment{ID: id, NetNS: s.path, PodNamespace: "default", PodName: id, Ports: ports})
	w.must(err)
	return s, res.IPs
}

// whoami answers every connection with the address it came from.
func (w *world) whoami(s space, port uint16) {
	w.t.Helper()
	w.must(within(s.ns, func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
				c.Close()
			}
		}()
		return nil
	}))
}

// seen is the source address under which from is known at ip:port.
func (w *world) seen(from space, ip netip.Addr, port uint16) string {
	w.t.Helper()
	return w.seenAs(from, netip.Addr{}, ip, port)
}

// seenAs is seen with a source address of the caller's choice.
func (w *world) seenAs(from space, source, ip netip.Addr, port uint16) string {
	w.t.Helper()
	var answer []byte
	w.must(within(from.ns, func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		defer cancel()
		d := &net.Dialer{}
		if source.IsValid() {
			d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
		}
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(ip, port).String())
		if err != nil {
			return err
		}
		defer c.Close()
		answer, err = io.ReadAll(c)
		return err
	}))
	return string(answer)
}
