// Package numa places a container's CPUs, memory and devices near each other.
// Each provider of such things hints at the NUMA nodes that it could serve a
// container from, the policy joins the hints of all into one, or refuses the
// pod, and the providers then allocate by it. Policies, scopes and their texts
// are upstream's topology manager's.
package numa

import (
	"cmp"
	"math/bits"
	"slices"
)

// Nodes is a set of NUMA nodes, by number: bit n stands for node n.
type Nodes uint64

// maxNodes is how many nodes a set can hold.
const maxNodes = 64

// Of is the set of some nodes; numbers that can't be are left out.
func Of(nodes ...int) Nodes {
	var s Nodes
	for _, n := range nodes {
		if n >= 0 && n < maxNodes {
			s |= 1 << n
		}
	}
	return s
}

// Count is how many nodes there are in the set.
func (s Nodes) Count() int { return bits.OnesCount64(uint64(s)) }

// Has reports whether a node is in the set.
func (s Nodes) Has(n int) bool { return n >= 0 && n < maxNodes && s&(1<<n) != 0 }

// Within reports whether all of the set are in o.
func (s Nodes) Within(o Nodes) bool { return s&^o == 0 }

// List is the set's nodes in order.
func (s Nodes) List() []int {
	var list []int
	for n := range maxNodes {
		if s.Has(n) {
			list = append(list, n)
		}
	}
	return list
}

// narrower orders sets: fewer nodes first, then lower ones.
func narrower(a, b Nodes) int { return cmp.Or(a.Count()-b.Count(), cmp.Compare(a, b)) }

// Subsets calls fn with every set of at least one of the nodes.
func Subsets(nodes []int, fn func(Nodes)) {
	all := Of(nodes...)
	for s := all; s > 0; s = (s - 1) & all {
		fn(s)
	}
}

// Hint is a set of nodes that something could come from. Preferred is as few
// nodes as there can be for it. An Any hint has no opinion.
type Hint struct {
	Nodes     Nodes
	Any       bool
	Preferred bool
}

// Policy decides what to make of hints.
type Policy struct {
	// Name is none, best-effort, restricted or single-numa-node.
	Name string
	// All are the machine's nodes.
	All []int
	// Closest prefers nodes that are near each other; Distance tells how far.
	Closest  bool
	Distance func(a, b int) int
}

// Names of policies.
const (
	None       = "none"
	BestEffort = "best-effort"
	Restricted = "restricted"
	Single     = "single-numa-node"
)

// Merge joins what providers hint at, one map a provider, by resource. A nil map
// has no opinion; an empty list means that the resource can't be had. It reports
// whether the pod may come.
func (p Policy) Merge(providers []map[string][]Hint) (Hint, bool) {
	if p.Name == None {
		return Hint{Any: true, Preferred: true}, true
	}
	lists := p.lists(providers)
	best := Hint{Nodes: Of(p.All...)}
	found := false
	p.product(lists, nil, func(combination []Hint) {
		h := p.join(combination)
		if h.Nodes == 0 {
			return
		}
		if !found || p.better(h, best) {
			best, found = h, true
		}
	})
	if !found {
		best = Hint{Nodes: Of(p.All...)}
	}
	if p.Name == Single && best.Nodes == Of(p.All...) && len(p.All) > 1 {
		best = Hint{Any: true, Preferred: best.Preferred}
	}
	return best, p.Name == BestEffort || best.Preferred
}

func (p Policy) lists(providers []map[string][]Hint) [][]Hint {
	var lists [][]Hint
	for _, hints := range providers {
		for _, name := range sorted(hints) {
			list := hints[name]
			switch {
			case list == nil:
				list = []Hint{{Any: true, Preferred: true}}
			case len(list) == 0:
				list = []Hint{{Any: true}}
			}
			if p.Name == Single {
				list = slices.DeleteFunc(slices.Clone(list), func(h Hint) bool { return !h.Preferred || (!h.Any && h.Nodes.Count() != 1) })
			}
			lists = append(lists, list)
		}
	}
	return lists
}

func sorted(m map[string][]Hint) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// product calls fn with every choice of one hint from each list.
func (p Policy) product(lists [][]Hint, chosen []Hint, fn func([]Hint)) {
	if len(lists) == 0 {
		fn(chosen)
		return
	}
	for _, h := range lists[0] {
		p.product(lists[1:], append(chosen[:len(chosen):len(chosen)], h), fn)
	}
}

// join is what hints have in common. It is preferred when each of them is, and
// all are about the same nodes.
func (p Policy) join(hints []Hint) Hint {
	out := Hint{Nodes: Of(p.All...), Preferred: true}
	first := Nodes(0)
	for _, h := range hints {
		out.Preferred = out.Preferred && h.Preferred
		if h.Any {
			continue
		}
		if first == 0 {
			first = h.Nodes
		}
		out.Preferred = out.Preferred && h.Nodes == first
		out.Nodes &= h.Nodes
	}
	return out
}

// better: preferred goes before all, then fewer nodes, then nearer or lower ones.
func (p Policy) better(a, b Hint) bool {
	if a.Preferred != b.Preferred {
		return a.Preferred
	}
	if p.Closest && a.Nodes.Count() == b.Nodes.Count() {
		if d := p.spread(a.Nodes) - p.spread(b.Nodes); d != 0 {
			return d < 0
		}
	}
	return narrower(a.Nodes, b.Nodes) < 0
}

// spread is the sum of distances between all pairs of nodes.
func (p Policy) spread(s Nodes) int {
	sum, list := 0, s.List()
	for _, a := range list {
		for _, b := range list {
			sum += p.Distance(a, b)
		}
	}
	return sum
}
