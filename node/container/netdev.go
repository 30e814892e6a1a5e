package container

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// checkNetDevices says what is wrong with linux.netDevices before anything is made.
func checkNetDevices(linux *specs.Linux) error {
	if len(linux.NetDevices) == 0 {
		return nil
	}
	own := slices.ContainsFunc(linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace })
	if !own {
		return errors.New("network devices: the container has no network namespace that they could be moved to")
	}
	for name, d := range linux.NetDevices {
		for _, n := range []string{name, d.Name} {
			if !deviceName(n) && (n != "" || n == name) {
				return fmt.Errorf("network device %q: %q is not the name of one", name, n)
			}
		}
	}
	return nil
}

// deviceName is the kernel's dev_valid_name.
func deviceName(s string) bool {
	return s != "" && len(s) < unix.IFNAMSIZ && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r")
}

// moveNetDevices gives the container whose network namespace is at a path the devices
// of this process's (config-linux.md, "Network Devices"). What has been moved goes the
// way of its namespace when something fails later, which is the specification's wish.
func moveNetDevices(path string, devices map[string]specs.LinuxNetDevice) error {
	if len(devices) == 0 {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("network devices: %w", err)
	}
	defer f.Close()
	there, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("network devices: socket in the container's namespace: %w", err)
	}
	defer there.Close()
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		d := netDevice{name: name, wanted: devices[name].Name, there: there}
		if err := d.move(int(f.Fd())); err != nil {
			return fmt.Errorf("network device %q: %w", name, err)
		}
	}
	return nil
}

// netDevice is one on its way.
type netDevice struct {
	name, wanted string
	there        *netlink.Handle
}

func (d *netDevice) move(namespace int) error {
	link, err := netlink.LinkByName(d.name)
	if err != nil {
		return err
	}
	// The kernel takes the addresses away, those of IPv6 as soon as it is down.
	addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	before, err := d.names()
	if err != nil {
		return err
	}
	name := d.wanted
	if name == "" {
		name = d.name
	}
	if before[name] {
		return fmt.Errorf("the container has a %q already: %w", name, unix.EEXIST)
	}
	if err := moveLink(link.Attrs().Index, name, namespace); err != nil {
		return fmt.Errorf("move to the container: %w", err)
	}
	if strings.Contains(name, "%d") { // the kernel has chosen the number
		if name, err = d.chosen(before); err != nil {
			return err
		}
	}
	return d.revive(name, addresses)
}

// moveLink moves and names a device in one step, so that nobody sees one without the other.
func moveLink(index int, name string, namespace int) error {
	r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index) //nolint:gosec // the kernel's own
	r.AddData(msg)
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	r.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(namespace)))) //nolint:gosec // a descriptor
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// names are those of the devices that the container has.
func (d *netDevice) names() (map[string]bool, error) {
	links, err := d.there.LinkList()
	if err != nil {
		return nil, fmt.Errorf("the container's devices: %w", err)
	}
	out := make(map[string]bool, len(links))
	for _, l := range links {
		out[l.Attrs().Name] = true
	}
	return out, nil
}

// chosen is the name of the device that has come.
func (d *netDevice) chosen(before map[string]bool) (string, error) {
	now, err := d.names()
	if err != nil {
		return "", err
	}
	for name := range now {
		if !before[name] {
			return name, nil
		}
	}
	return "", fmt.Errorf("the name that the kernel has chosen for %q: %w", d.wanted, ErrNotFound)
}

// revive gives a device the addresses that it had, and sets it up.
func (d *netDevice) revive(name string, addresses []netlink.Addr) error {
	link, err := d.there.LinkByName(name)
	if err != nil {
		return err
	}
	for i := range addresses {
		a := &addresses[i]
		if !lasting(a) {
			continue
		}
		again := &netlink.Addr{IPNet: a.IPNet, Peer: a.Peer, Broadcast: a.Broadcast, Flags: a.Flags & keptAddressFlags}
		if err := d.there.AddrAdd(link, again); err != nil {
			return fmt.Errorf("address %s: %w", a.IPNet, err)
		}
	}
	return d.there.LinkSetUp(link)
}

// keptAddressFlags are those that somebody has set; the others are states.
const keptAddressFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN

// lasting says that an address is the device's own wherever it is: permanent, and of
// global scope.
func lasting(a *netlink.Addr) bool {
	return a.Flags&unix.IFA_F_PERMANENT != 0 && a.Scope == unix.RT_SCOPE_UNIVERSE
}
