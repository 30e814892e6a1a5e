package container

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// TestCheckNetDevices is what is refused before anything is made.
func TestCheckNetDevices(t *testing.T) {
	own := []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}
	for name, c := range map[string]struct {
		in   specs.Linux
		want string
	}{
		"none":          {specs.Linux{}, "<nil>"},
		"one":           {specs.Linux{Namespaces: own, NetDevices: map[string]specs.LinuxNetDevice{"eth7": {}}}, "<nil>"},
		"renamed":       {specs.Linux{Namespaces: own, NetDevices: map[string]specs.LinuxNetDevice{"eth7": {Name: "net%d"}}}, "<nil>"},
		"host":          {specs.Linux{NetDevices: map[string]specs.LinuxNetDevice{"eth7": {}}}, "network devices: the container has no network namespace that they could be moved to"},
		"no name":       {specs.Linux{Namespaces: own, NetDevices: map[string]specs.LinuxNetDevice{"": {}}}, `network device "": "" is not the name of one`},
		"long name":     {specs.Linux{Namespaces: own, NetDevices: map[string]specs.LinuxNetDevice{"e": {Name: "0123456789abcdef"}}}, `network device "e": "0123456789abcdef" is not the name of one`},
		"a path":        {specs.Linux{Namespaces: own, NetDevices: map[string]specs.LinuxNetDevice{"../x": {}}}, `network device "../x": "../x" is not the name of one`},
		"a parent":      {specs.Linux{Namespaces: own, NetDevices: map[string]specs.LinuxNetDevice{"e": {Name: ".."}}}, `network device "e": ".." is not the name of one`},
		"a second line": {specs.Linux{Namespaces: own, NetDevices: map[string]specs.LinuxNetDevice{"e": {Name: "a\nb"}}}, `network device "e": "a\nb" is not the name of one`},
	} {
		if got := fmt.Sprint(checkNetDevices(&c.in)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// machine puts this test into a network of its own that has two devices, the ends of
// one cable: a, which is up and has addresses, and b.
func machine(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces, mounts and cgroups")
	}
	runtime.LockOSThread() // for good: the thread goes with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	a := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a", MTU: 1789, HardwareAddr: net.HardwareAddr{2, 1, 2, 3, 4, 5}}, PeerName: "b"}
	err := netlink.LinkAdd(a)
	for _, text := range []string{"192.0.2.7/24", "2001:db8::7/64", "127.0.9.9/32"} {
		addr, perr := netlink.ParseAddr(text)
		if err = errors.Join(err, perr); err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if addr.IP.IsLoopback() {
			addr.Scope = unix.RT_SCOPE_HOST
		}
		err = errors.Join(err, netlink.AddrAdd(a, addr))
	}
	if err := errors.Join(err, netlink.LinkSetUp(a)); err != nil {
		t.Fatal(err)
	}
}

// seen is what a container has of a device.
func seen(t *testing.T, pid int, name string) string {
	t.Helper()
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	there, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	link, err := there.LinkByName(name)
	if err != nil {
		return err.Error()
	}
	addrs, err := there.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range addrs {
		if a.Scope == unix.RT_SCOPE_UNIVERSE || a.Scope == unix.RT_SCOPE_HOST {
			out = append(out, a.IPNet.String())
		}
	}
	slices.Sort(out)
	l := link.Attrs()
	return fmt.Sprint(l.MTU, l.HardwareAddr, l.Flags&net.FlagUp != 0, out)
}

// TestOCINetDevices: devices move with their addresses, of both families though one was
// up, and with what else they are; the kernel chooses a number where it is asked to.
func TestOCINetDevices(t *testing.T) {
	machine(t)
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a": {}, "b": {Name: "net%d"}}
	}, "sleep")
	if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	pid := o.expect(t, specs.StateCreated).Pid
	if got, want := seen(t, pid, "a"), "1789 02:01:02:03:04:05 true [192.0.2.7/24 2001:db8::7/64]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := seen(t, pid, "net0"); !strings.Contains(got, " true ") {
		t.Errorf("the renamed device: %s", got)
	}
	for _, name := range []string{"a", "b"} {
		if _, err := netlink.LinkByName(name); !errors.As(err, new(netlink.LinkNotFoundError)) {
			t.Errorf("device %q is still here: %v", name, err)
		}
	}
}

// TestOCINetDevicesRefused: what can't be moved is the end of the creation, and stays as
// it was.
func TestOCINetDevicesRefused(t *testing.T) {
	machine(t)
	for name, d := range map[string]specs.LinuxNetDevice{"a": {Name: "lo"}, "none": {}} {
		o, bundle := newOCI(t, func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{name: d} }, "sleep")
		err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("network device %q", name)) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := o.State("c1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: left: %v", name, err)
		}
	}
	if got, want := seen(t, unix.Gettid(), "a"), "1789 02:01:02:03:04:05 true [127.0.9.9/32 192.0.2.7/24 2001:db8::7/64]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestOCILoopback: a new network has its one device up, by a list of calls and by a stage.
func TestOCILoopback(t *testing.T) {
	for name, priority := range map[string]*specs.LinuxIOPriority{"list": nil, "stage": {Class: specs.IOPRIO_CLASS_BE, Priority: 5}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		o, bundle := newOCI(t, func(s *specs.Spec) { s.Process.IOPriority = priority }, "read", "/sys/class/net/lo/flags")
		err = o.Run(t.Context(), "c1", OCICreate{Bundle: bundle, Stdio: [3]*os.File{nil, w, w}})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if code, err := o.Wait("c1"); code != 0 || err != nil {
			t.Errorf("%s: code %d, %v", name, code, err)
		}
		b, err := io.ReadAll(r)
		if r.Close(); err != nil || !strings.HasSuffix(string(b), " 0x9\n") { // up, and the loopback
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// TestRlimitsTurned: limits that the kernel refuses are refused while somebody listens.
func TestRlimitsTurned(t *testing.T) {
	_, err := planRlimits([]specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 9, Hard: 8}})
	if err == nil || err.Error() != `rlimit "RLIMIT_NOFILE": the soft limit 9 is above the hard one, 8` {
		t.Errorf("%v", err)
	}
}
