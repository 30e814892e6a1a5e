package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// podInterface is the name every container finds.
const podInterface = "eth0"

// defaultMTU is Ethernet's, where no interface says otherwise.
const defaultMTU = 1500

// ensure makes the bridge, its addresses, the host settings and the tables, and
// puts the interfaces of known attachments back on the bridge. n.mu is held.
func (n *Net) ensure() error {
	if len(n.pools) == 0 {
		return ErrNoPodCIDR
	}
	n.mtu = n.cfg.MTU
	if n.mtu == 0 {
		n.mtu = n.uplinkMTU()
	}
	link, err := n.ensureLink()
	if err != nil {
		return fmt.Errorf("bridge %q: %w", n.cfg.Bridge, err)
	}
	for _, p := range n.pools {
		addr := &netlink.Addr{IPNet: ipNet(p.gateway, p.prefix.Bits())}
		if p.gateway.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := n.nl.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("address %s of bridge %q: %w", p.gateway, n.cfg.Bridge, err)
		}
	}
	for _, ip := range n.cfg.Local {
		addr := &netlink.Addr{IPNet: ipNet(ip, ip.BitLen())}
		if err := n.nl.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("address %s of bridge %q: %w", ip, n.cfg.Bridge, err)
		}
	}
	n.bridge = link.Attrs().Index
	records, err := n.records()
	if err != nil {
		return err
	}
	for _, rec := range records {
		n.replug(rec)
	}
	if err := n.nat.install(n.natConfig(), records); err != nil {
		return err
	}
	if err := n.nat.guardLink(hardwareAddr(n.pools[0].gateway)); err != nil {
		n.log.Warn("pods can send to each other past the node", "error", err)
	}
	return within(n.host, n.hostSettings) // only now: the table has the guard
}

// ensureLink gives the bridge a fixed hardware address, so that the pods'
// neighbour entries for it stay true whatever else is plugged in.
func (n *Net) ensureLink() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.cfg.Bridge
	attrs.MTU = n.mtu
	attrs.HardwareAddr = hardwareAddr(n.pools[0].gateway)
	attrs.Flags = net.FlagUp
	err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	link, err := n.nl.LinkByName(n.cfg.Bridge)
	if err != nil {
		return nil, err
	}
	if link.Type() != "bridge" {
		return nil, fmt.Errorf("an interface of that name exists and is a %s", link.Type())
	}
	if link.Attrs().HardwareAddr.String() != attrs.HardwareAddr.String() {
		if err := n.nl.LinkSetHardwareAddr(link, attrs.HardwareAddr); err != nil {
			return nil, err
		}
	}
	return link, n.nl.LinkSetUp(link)
}

// hostSettings runs inside the host's namespace. Router advertisements from
// pods are ignored in any case (CVE-2020-10749).
func (n *Net) hostSettings() error {
	v6 := n.pools[len(n.pools)-1].gateway.Is6()
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		if err := sysctl("ipv6/conf/"+n.cfg.Bridge+"/accept_ra", "0"); err != nil {
			return err
		}
	}
	// Answers to the host's own 127.0.0.1 come in here; the table's guard sees to
	// it that nothing else does.
	if err := sysctl("ipv4/conf/"+n.cfg.Bridge+"/route_localnet", "1"); err != nil {
		return err
	}
	if !n.cfg.Forwarding {
		return nil
	}
	if err := n.change("ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if !v6 {
		return nil
	}
	// A forwarding host stops listening to its own router, unless told to go on.
	settings, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, s := range settings {
		if v, err := os.ReadFile(s); err == nil && strings.TrimSpace(string(v)) == "1" {
			if err := n.change(strings.TrimPrefix(s, "/proc/sys/net/"), "2"); err != nil {
				return err
			}
		}
	}
	return n.change("ipv6/conf/all/forwarding", "1")
}

// uplinkMTU is that of the interface with the default route.
func (n *Net) uplinkMTU() int {
	routes, err := n.nl.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return defaultMTU
	}
	for _, r := range routes {
		if r.Gw == nil || (r.Dst != nil && !r.Dst.IP.IsUnspecified()) {
			continue
		}
		if link, err := n.nl.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU > 0 {
			return link.Attrs().MTU
		}
	}
	return defaultMTU
}

// isolate keeps traffic from a pod: no translation leads to it, and the host no
// longer knows its hardware address.
func (n *Net) isolate(rec record) error {
	errs := []error{n.nat.del(rec)}
	n.mu.Lock()
	bridge := n.bridge
	n.mu.Unlock()
	for _, ip := range rec.IPs {
		if bridge == 0 {
			break // its entries went with it
		}
		if err := n.nl.NeighDel(neighbour(bridge, ip, nil)); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("delete neighbour entry of %s: %w", ip, err))
		}
	}
	return errors.Join(errs...)
}

// detachBridge works from the record alone; every step tolerates that it was
// done before.
func (n *Net) detachBridge(rec record) error {
	var errs []error
	if !rec.Leaving {
		errs = append(errs, n.isolate(rec))
	}
	errs = append(errs, n.unlink(vethName(rec.ID)))
	if err := errors.Join(errs...); err != nil {
		return err // the addresses stay taken: somebody may still use them
	}
	n.mu.Lock()
	pools := n.pools
	n.mu.Unlock()
	for _, ip := range rec.IPs {
		errs = append(errs, n.release(pools, ip, rec.ID))
	}
	return errors.Join(errs...)
}

// release also frees addresses of a pod CIDR that the node no longer has.
func (n *Net) release(pools []*pool, ip netip.Addr, id string) error {
	for _, p := range pools {
		if p.prefix.Contains(ip) {
			return p.release(ip, id)
		}
	}
	err := os.Remove(filepath.Join(n.cfg.State, "addresses", addrFile(ip)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// replug puts a known attachment's interface on the bridge again; a missing
// interface is not an error, its pod is about to be found dead.
func (n *Net) replug(rec record) {
	link, err := n.nl.LinkByName(vethName(rec.ID))
	if err != nil {
		return
	}
	if link.Attrs().MasterIndex != n.bridge {
		err = n.nl.LinkSetMasterByIndex(link, n.bridge)
	}
	if err == nil && len(rec.IPs) > 0 {
		err = n.fence(link, hardwareAddr(rec.IPs[0])) // which an older version may not have done
	}
	for _, ip := range rec.IPs {
		err = errors.Join(err, n.nl.NeighSet(neighbour(n.bridge, ip, hardwareAddr(rec.IPs[0]))))
	}
	if err != nil {
		n.log.Warn("pod interface cannot be put on the bridge", "interface", vethName(rec.ID), "error", err)
	}
}

func (n *Net) removeBridge() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.cfg.Bridge
	n.bridge = 0
	if err := n.nl.LinkDel(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !gone(err) {
		return fmt.Errorf("delete bridge %q: %w", n.cfg.Bridge, err)
	}
	return nil
}

func neighbour(index int, ip netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	family := netlink.FAMILY_V4
	if ip.Is6() {
		family = netlink.FAMILY_V6
	}
	return &netlink.Neigh{LinkIndex: index, Family: family, IP: ip.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT}
}

// portPrefix begins the names of pods' interfaces on the host's side.
const portPrefix = "sp"

// vethName is derived from the ID, so that a lost record loses no interface.
func vethName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return portPrefix + hex.EncodeToString(sum[:6])
}

// hardwareAddr derives a locally administered address from an IP: unique where
// the IP is.
func hardwareAddr(ip netip.Addr) net.HardwareAddr {
	b := ip.AsSlice()
	return append(net.HardwareAddr{0x0a, 0x58}, b[len(b)-4:]...)
}

func ipNet(ip netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(bits, ip.BitLen())}
}

func zeroAddr(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// gone tells whether a deletion failed because there was nothing to delete.
func gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}
