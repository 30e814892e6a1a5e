package peers

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
)

// neighbourhood makes a network namespace with an interface in 192.0.2.0/24, and
// gives its path.
func neighbourhood(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	if back := netns.Set(before); back != nil {
		t.Fatal(back)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}
	addr, _ := netlink.ParseAddr("192.0.2.1/24")
	for _, err := range []error{h.LinkAdd(link), h.AddrAdd(link, addr), h.LinkSetUp(link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func nodeAt(name, address, pods string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: pods}}
	if pods != "" {
		n.Spec.PodCIDRs = []string{pods}
	}
	if address != "" {
		n.Status.Addresses = []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: address},
		}
	}
	return n
}

func TestPeers(t *testing.T) {
	path := neighbourhood(t)
	api := clienttest.NewMemory()
	create := func(n *corev1.Node) {
		t.Helper()
		if _, err := client.Nodes.Create(t.Context(), api, n); err != nil {
			t.Fatal(err)
		}
	}
	create(nodeAt("own", "192.0.2.1", "10.42.0.0/24"))
	create(nodeAt("far", "203.0.113.9", "10.42.9.0/24"))
	p := New(Config{Transport: api, NodeName: "own", NetNS: path})
	h, done, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	go func() { _ = p.nodes.Run(t.Context()) }()
	<-p.nodes.Synced()
	expect := func(what string, want ...string) {
		t.Helper()
		p.align(h)
		have, err := ours(h)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for w := range maps.Keys(have) {
			got = append(got, w.to.String()+" by "+w.by.String())
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: routes %q, want %q", what, got, want)
		}
	}
	<-p.wake
	expect("neither oneself nor who is far away")
	foreign := routeOf(way{to: netip.MustParsePrefix("10.42.7.0/24"), by: netip.MustParseAddr("192.0.2.200")})
	foreign.Protocol = unix.RTPROT_STATIC
	if err := h.RouteAdd(foreign); err != nil {
		t.Fatal(err)
	}
	create(nodeAt("a", "192.0.2.10", "10.42.1.0/24"))
	<-p.wake
	expect("a neighbour", "10.42.1.0/24 by 192.0.2.10")
	create(nodeAt("b", "192.0.2.11", ""))
	<-p.wake
	expect("a neighbour without pods", "10.42.1.0/24 by 192.0.2.10")
	b, err := client.Nodes.Get(t.Context(), api, "", "b")
	if err != nil {
		t.Fatal(err)
	}
	b = b.DeepCopy()
	b.Spec.PodCIDR, b.Spec.PodCIDRs = "10.42.2.0/24", []string{"10.42.2.0/24"}
	if _, err := client.Nodes.Update(t.Context(), api, b); err != nil {
		t.Fatal(err)
	}
	<-p.wake
	expect("now with pods", "10.42.1.0/24 by 192.0.2.10", "10.42.2.0/24 by 192.0.2.11")
	if err := client.Nodes.Delete(t.Context(), api, "", "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	<-p.wake
	expect("one has gone", "10.42.2.0/24 by 192.0.2.11")
	if err := Cleanup(path); err != nil {
		t.Fatal(err)
	}
	left, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: unix.RTPROT_STATIC}, netlink.RT_FILTER_PROTOCOL)
	if err != nil || len(left) != 1 {
		t.Errorf("somebody else's route: %v, %v", left, err)
	}
	if have, err := ours(h); err != nil || len(have) != 0 {
		t.Errorf("left behind: %v, %v", have, err)
	}
}
