package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestReleasedAddressesAreReusedLast(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "addresses")
	pools, err := openPools(dir, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29")})
	if err != nil {
		t.Fatal(err)
	}
	p := pools[0]
	take := func(want string) {
		t.Helper()
		ip, err := p.reserve("pod-" + want)
		if err != nil || ip.String() != want {
			t.Fatalf("got %v, %v; want %s", ip, err, want)
		}
	}
	give := func(ip string) {
		t.Helper()
		if err := p.release(netip.MustParseAddr(ip), "pod-"+ip); err != nil {
			t.Fatal(err)
		}
	}
	take("10.0.0.2") // .0 is the network, .1 the gateway
	take("10.0.0.3")
	give("10.0.0.3")
	take("10.0.0.4")
	give("10.0.0.2")
	take("10.0.0.5")
	take("10.0.0.6") // .7 is broadcast, so the fresh ones end here
	take("10.0.0.3")

	pools, err = openPools(dir, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29")})
	if err != nil {
		t.Fatal(err)
	}
	p = pools[0]
	take("10.0.0.2")
	if ip, err := p.reserve("x"); err == nil {
		t.Fatalf("a full range gave %s", ip)
	}
	if err := p.release(netip.MustParseAddr("10.0.0.4"), "somebody else"); err != nil {
		t.Fatal(err)
	}
	if ip, err := p.reserve("x"); err == nil {
		t.Fatalf("%s was taken from its owner", ip)
	}
	give("10.0.0.4")
	take("10.0.0.4")
	if entries, _ := os.ReadDir(dir); len(entries) != 5 {
		t.Fatalf("%d files for 5 addresses: %v", len(entries), entries)
	}
}

func TestBadPodCIDRs(t *testing.T) {
	for _, in := range [][]string{{"10.0.0.0/31"}, {"10.0.0.0/24", "10.0.1.0/24"}, {"10.0.0.0/24", "fd00::/64", "fd01::/64"}} {
		var prefixes []netip.Prefix
		for _, s := range in {
			prefixes = append(prefixes, netip.MustParsePrefix(s))
		}
		if _, err := openPools(t.TempDir(), prefixes); err == nil {
			t.Errorf("%v was accepted", in)
		}
	}
}
