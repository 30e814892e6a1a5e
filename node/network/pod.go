package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// attachBridge fills in rec.IPs as it goes, so that a failure can be undone
// from rec.
func (n *Net) attachBridge(rec *record) error {
	n.mu.Lock()
	pools, mtu, bridge := n.pools, n.mtu, n.bridge
	n.mu.Unlock()
	if len(pools) == 0 || bridge == 0 {
		return ErrNoPodCIDR
	}
	for _, p := range pools {
		ip, err := p.reserve(rec.ID)
		if err != nil {
			return err
		}
		rec.IPs = append(rec.IPs, ip)
	}
	if err := n.save(*rec); err != nil {
		return err
	}
	ns, err := netns.GetFromPath(rec.NetNS)
	if err != nil {
		return fmt.Errorf("open network namespace %q: %w", rec.NetNS, err)
	}
	defer ns.Close()
	host, err := n.plug(rec, ns, mtu, bridge)
	if err != nil {
		return err
	}
	if err := n.configurePod(rec, ns, pools); err != nil {
		return err
	}
	if err := n.fence(host, hardwareAddr(rec.IPs[0])); err != nil {
		return err
	}
	for _, ip := range rec.IPs {
		if err := n.nl.NeighSet(neighbour(bridge, ip, hardwareAddr(rec.IPs[0]))); err != nil {
			return fmt.Errorf("neighbour entry of %s: %w", ip, err)
		}
	}
	return n.nat.add(*rec)
}

// plug makes the veth pair: one end on the bridge and up, the other in ns.
func (n *Net) plug(rec *record, ns netns.NsHandle, mtu, bridge int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = vethName(rec.ID)
	attrs.MTU = mtu
	attrs.Flags = net.FlagUp
	veth := &netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         podInterface,
		PeerHardwareAddr: hardwareAddr(rec.IPs[0]),
		PeerNamespace:    netlink.NsFd(ns),
	}
	if err := n.nl.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make interface pair %q: %w", attrs.Name, err)
	}
	if err := n.port(veth.Index, bridge); err != nil {
		return nil, fmt.Errorf("put interface %q on the bridge: %w", attrs.Name, err)
	}
	return veth, nil
}

// port puts an interface on the bridge, and keeps it from having an address of its own
// there: with each the kernel would speak to all pods.
func (n *Net) port(index, bridge int) error {
	master := nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))) //nolint:gosec // the kernel's own
	quiet := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	quiet.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{nl.IN6_ADDR_GEN_MODE_NONE})
	err := n.raw.link(unix.RTM_SETLINK, unix.AF_UNSPEC, index, master, quiet)
	if err == nil {
		return nil
	}
	return n.raw.link(unix.RTM_SETLINK, unix.AF_UNSPEC, index, master) // IPv6 may be switched off
}

// configurePod sets up loopback, address and routes inside ns.
func (n *Net) configurePod(rec *record, ns netns.NsHandle, pools []*pool) error {
	pod, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in %q: %w", rec.NetNS, err)
	}
	defer pod.Close()
	eth, err := pod.LinkByName(podInterface)
	if err != nil {
		return fmt.Errorf("find %s in %q: %w", podInterface, rec.NetNS, err)
	}
	v6 := slices.ContainsFunc(rec.IPs, netip.Addr.Is6)
	if err := within(ns, func() error { return podSettings(v6) }); err != nil {
		return err
	}
	lo, err := pod.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback in %q: %w", rec.NetNS, err)
	}
	if err := pod.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	for _, ip := range rec.IPs {
		addr := &netlink.Addr{IPNet: ipNet(ip, ip.BitLen())}
		if ip.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := pod.AddrAdd(eth, addr); err != nil {
			return fmt.Errorf("address %s: %w", ip, err)
		}
	}
	if err := pod.LinkSetUp(eth); err != nil {
		return fmt.Errorf("%s up: %w", podInterface, err)
	}
	for i, p := range pools {
		if err := podRoutes(pod, eth.Attrs().Index, p, pools[0].gateway); err != nil {
			return fmt.Errorf("routes of %s: %w", rec.IPs[i], err)
		}
	}
	return nil
}

// podRoutes leads everything through the gateway, whose hardware address is
// known and need not be asked for.
func podRoutes(pod *netlink.Handle, index int, p *pool, mac netip.Addr) error {
	gw := p.gateway.AsSlice()
	err := pod.NeighSet(&netlink.Neigh{LinkIndex: index, IP: gw, HardwareAddr: hardwareAddr(mac), State: netlink.NUD_PERMANENT})
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", p.gateway, err)
	}
	err = pod.RouteReplace(&netlink.Route{LinkIndex: index, Dst: ipNet(p.gateway, p.gateway.BitLen()), Scope: netlink.SCOPE_LINK})
	if err != nil {
		return fmt.Errorf("to gateway %s: %w", p.gateway, err)
	}
	err = pod.RouteReplace(&netlink.Route{LinkIndex: index, Gw: gw, Dst: ipNet(zeroAddr(p.gateway), 0)})
	if err != nil {
		return fmt.Errorf("default by %s: %w", p.gateway, err)
	}
	return nil
}

// podSettings runs inside the pod's namespace: neither router advertisements
// nor redirects from a neighbour may change its routes. Where pods have no IPv6 its
// interface has none either: it would reach nobody, and each new pod would ask all
// others who they are. Where they have, nobody can have a pod's address already.
func podSettings(v6 bool) error {
	settings := map[string]string{"ipv4/conf/all/accept_redirects": "0", "ipv4/conf/" + podInterface + "/accept_redirects": "0"}
	own := "ipv6/conf/" + podInterface
	if v6 {
		settings[own+"/accept_ra"], settings[own+"/accept_redirects"], settings[own+"/accept_dad"] = "0", "0", "0"
	} else {
		settings[own+"/disable_ipv6"] = "1"
	}
	for name, value := range settings {
		if err := sysctl(name, value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Usage counts what went through a pod's interface since it was attached, as
// the pod sees it.
type Usage struct {
	Interface                            string
	RxBytes, RxErrors, TxBytes, TxErrors uint64
	// Packets, and those that were thrown away.
	RxPackets, RxDropped, TxPackets, TxDropped uint64
}

// Usage tells what the pod with that ID has sent and received; false when it is
// not on the bridge.
func (n *Net) Usage(id string) (Usage, bool) {
	link, err := n.nl.LinkByName(vethName(id))
	if err != nil || link.Attrs().Statistics == nil {
		return Usage{}, false
	}
	s := link.Attrs().Statistics // of the host's end: the other way round
	return Usage{Interface: podInterface, RxBytes: s.TxBytes, RxErrors: s.TxErrors, TxBytes: s.RxBytes, TxErrors: s.RxErrors,
		RxPackets: s.TxPackets, RxDropped: s.TxDropped, TxPackets: s.RxPackets, TxDropped: s.RxDropped}, true
}
