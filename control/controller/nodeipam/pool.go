package nodeipam

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"
)

// maxSteps is the greatest number of node ranges in a cluster range, as a power of
// two: upstream's.
const maxSteps = 16

// pool is a cluster's range, cut into nodes'.
type pool struct {
	whole    netip.Prefix
	bits     int
	reserved []netip.Prefix
	// after is where the last range was found: ranges go round, so that one that
	// was given back is not given out again at once.
	after int
}

func newPool(whole netip.Prefix, bits int, reserved []netip.Prefix) (*pool, error) {
	whole = whole.Masked()
	if bits < whole.Bits() || bits > whole.Addr().BitLen() {
		return nil, fmt.Errorf("node ranges: a node's /%d does not fit into %s", bits, whole)
	}
	if bits-whole.Bits() > maxSteps {
		return nil, fmt.Errorf("node ranges: %s has more than %d ranges of /%d", whole, 1<<maxSteps, bits)
	}
	return &pool{whole: whole, bits: bits, reserved: reserved}, nil
}

// free finds the next range that overlaps with none of taken.
func (p *pool) free(taken []netip.Prefix) (netip.Prefix, bool) {
	n := 1 << (p.bits - p.whole.Bits())
	used := make([]bool, n)
	for _, t := range slices.Concat(taken, p.reserved) {
		p.mark(used, t)
	}
	for i := range n {
		at := (p.after + i) % n
		if !used[at] {
			p.after = (at + 1) % n
			return p.at(at), true
		}
	}
	return netip.Prefix{}, false
}

// mark notes what a range, of whatever size, takes of the pool.
func (p *pool) mark(used []bool, t netip.Prefix) {
	t = t.Masked()
	switch {
	case !p.whole.Overlaps(t):
	case t.Bits() <= p.whole.Bits():
		for i := range used {
			used[i] = true
		}
	default:
		first := p.index(t.Addr())
		count := 1
		if t.Bits() < p.bits {
			count = 1 << (p.bits - t.Bits())
		}
		for i := first; i < first+count; i++ {
			used[i] = true
		}
	}
}

// index is the number of the range that an address lies in.
func (p *pool) index(a netip.Addr) int {
	d := new(big.Int).Sub(number(a), number(p.whole.Addr()))
	return int(d.Rsh(d, uint(a.BitLen()-p.bits)).Int64())
}

// at is the range with a number.
func (p *pool) at(i int) netip.Prefix {
	length := p.whole.Addr().BitLen()
	n := new(big.Int).Lsh(big.NewInt(int64(i)), uint(length-p.bits))
	n.Add(n, number(p.whole.Addr()))
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, length/8)))
	return netip.PrefixFrom(a, p.bits)
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }
