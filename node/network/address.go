package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// maxPool bounds the addresses of one prefix that are ever handed out: more
// than a node can hold pods, and small enough to keep a list of.
const maxPool = 1 << 16

// pool hands out the addresses of one prefix. An address is taken by making a
// file named after it that holds the owner's ID, which only one of two
// processes can do. Fresh addresses go first; when there are none left, the one
// that has been free for longest.
type pool struct {
	prefix  netip.Prefix
	gateway netip.Addr
	dir     string

	mu    sync.Mutex
	next  netip.Addr   // the lowest address that was never given; invalid when all were
	freed []netip.Addr // given back, longest ago first
	left  int          // how many fresh ones may still be given
}

func openPools(dir string, prefixes []netip.Prefix) ([]*pool, error) {
	if len(prefixes) > MaxPodCIDRs {
		return nil, fmt.Errorf("%d pod CIDRs, at most one of each family is possible", len(prefixes))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make address state: %w", err)
	}
	if err := atomicfile.Clean(dir); err != nil {
		return nil, fmt.Errorf("clean address state: %w", err)
	}
	var pools []*pool
	for _, prefix := range prefixes {
		p, err := openPool(dir, prefix)
		if err != nil {
			return nil, err
		}
		pools = append(pools, p)
	}
	slices.SortStableFunc(pools, func(a, b *pool) int { return a.gateway.BitLen() - b.gateway.BitLen() })
	if len(pools) == 2 && pools[0].gateway.Is4() == pools[1].gateway.Is4() {
		return nil, fmt.Errorf("pod CIDRs %s and %s are of one family", prefixes[0], prefixes[1])
	}
	return pools, nil
}

// openPool finds what is taken. What was given and came back before a restart
// is not told from what was never given, except by lying below the highest
// address in use: such addresses go to the end of the queue.
func openPool(dir string, prefix netip.Prefix) (*pool, error) {
	prefix = prefix.Masked()
	if !prefix.IsValid() || prefix.Addr().BitLen()-prefix.Bits() < 2 {
		return nil, fmt.Errorf("pod CIDR %q has no room for a gateway and a pod", prefix)
	}
	p := &pool{prefix: prefix, gateway: prefix.Addr().Next(), dir: dir, left: maxPool}
	p.next = p.gateway.Next()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list addresses in use: %w", err)
	}
	used := map[netip.Addr]bool{}
	highest := p.gateway
	for _, e := range entries {
		ip, err := netip.ParseAddr(fileAddr(e.Name()))
		if err != nil || !prefix.Contains(ip) {
			continue
		}
		used[ip] = true
		if highest.Less(ip) {
			highest = ip
		}
	}
	for p.next.IsValid() && p.next.Compare(highest) <= 0 && p.left > 0 {
		if ip := p.takeFresh(); !used[ip] {
			p.freed = append(p.freed, ip)
		}
	}
	return p, nil
}

// reserve takes an address for id.
func (p *pool) reserve(id string) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		ip := p.takeFresh()
		if !ip.IsValid() {
			if len(p.freed) == 0 {
				return netip.Addr{}, fmt.Errorf("no address is free in pod CIDR %s", p.prefix)
			}
			ip, p.freed = p.freed[0], p.freed[1:]
		}
		err := p.claim(ip, id)
		if errors.Is(err, fs.ErrExist) {
			continue // another process has it
		}
		return ip, err
	}
}

// takeFresh advances over the addresses never given: neither the gateway nor
// the last one, which is the broadcast address in IPv4.
func (p *pool) takeFresh() netip.Addr {
	ip := p.next
	if !ip.IsValid() || p.left == 0 {
		return netip.Addr{}
	}
	if !p.prefix.Contains(ip) || !p.prefix.Contains(ip.Next()) {
		p.next = netip.Addr{}
		return netip.Addr{}
	}
	p.next = ip.Next()
	p.left--
	return ip
}

// claim links a finished file into place, so that nobody sees an address
// without an owner.
func (p *pool) claim(ip netip.Addr, id string) error {
	tmp := filepath.Join(p.dir, addrFile(ip)+"."+id+atomicfile.Suffix)
	if err := os.WriteFile(tmp, []byte(id), 0o600); err != nil {
		return fmt.Errorf("reserve address %s: %w", ip, err)
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, filepath.Join(p.dir, addrFile(ip))); err != nil {
		return fmt.Errorf("reserve address %s: %w", ip, err)
	}
	return nil
}

// release gives ip back if id holds it.
func (p *pool) release(ip netip.Addr, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	path := filepath.Join(p.dir, addrFile(ip))
	owner, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && string(owner) != id) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("release address %s: %w", ip, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("release address %s: %w", ip, err)
	}
	p.freed = append(p.freed, ip)
	return nil
}

// releaseExcept gives back every address whose owner is not in keep.
func (p *pool) releaseExcept(keep map[string]bool) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("list addresses in use: %w", err)
	}
	var errs []error
	for _, e := range entries {
		ip, err := netip.ParseAddr(fileAddr(e.Name()))
		if err != nil || !p.prefix.Contains(ip) {
			continue
		}
		owner, err := os.ReadFile(filepath.Join(p.dir, e.Name()))
		if err != nil || keep[string(owner)] {
			continue
		}
		errs = append(errs, p.release(ip, string(owner)))
	}
	return errors.Join(errs...)
}

// addrFile writes IPv6 with '-' so that the name is good on any file system.
func addrFile(ip netip.Addr) string { return strings.ReplaceAll(ip.String(), ":", "-") }
func fileAddr(name string) string   { return strings.ReplaceAll(name, "-", ":") }
