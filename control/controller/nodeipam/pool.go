package nodeipam

import (
	"fmt"
	"math/big"
	"net/netip"
)

// maxSteps is the greatest number of node ranges in a cluster range, as a power of
// two: upstream's.
const maxSteps = 16

// pool is a cluster's range, cut into nodes'.
type pool struct {
	whole netip.Prefix
	bits  int
	// takers is how many hold each of the nodes' ranges. More than one can, for nodes
	// may bring ranges that overlap.
	takers []int
	// after is where the last range was found: ranges go round, so that one that
	// was given back is not given out again at once.
	after int
}

func newPool(whole netip.Prefix, bits int) (*pool, error) {
	whole = whole.Masked()
	if bits < whole.Bits() || bits > whole.Addr().BitLen() {
		return nil, fmt.Errorf("node ranges: a node's /%d does not fit into %s", bits, whole)
	}
	if bits-whole.Bits() > maxSteps {
		return nil, fmt.Errorf("node ranges: %s has more than %d ranges of /%d", whole, 1<<maxSteps, bits)
	}
	return &pool{whole: whole, bits: bits, takers: make([]int, 1<<(bits-whole.Bits()))}, nil
}

// free finds the next range that nobody holds.
func (p *pool) free() (netip.Prefix, bool) {
	for i := range p.takers {
		at := (p.after + i) % len(p.takers)
		if p.takers[at] == 0 {
			p.after = (at + 1) % len(p.takers)
			return p.at(at), true
		}
	}
	return netip.Prefix{}, false
}

// mark notes that there is one more that holds a range, of whatever size, or one
// less.
func (p *pool) mark(t netip.Prefix, by int) {
	t = t.Masked()
	if !p.whole.Overlaps(t) {
		return
	}
	first, count := 0, len(p.takers)
	if t.Bits() > p.whole.Bits() {
		first, count = p.index(t.Addr()), 1<<max(p.bits-t.Bits(), 0)
	}
	for i := first; i < first+count; i++ {
		p.takers[i] += by
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
