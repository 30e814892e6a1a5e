package cpu

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/utils/cpuset"

	"github.com/sampan-dev/sampan/node/agent/numa"
)

// take picks n of the free CPUs, of which there are at least n: whole nodes,
// sockets, caches and cores while they fit, and then single CPUs where least is
// left; spread over nodes or cores if the options say so.
func (c *CPUs) take(free cpuset.CPUSet, n int) []int {
	switch {
	case n <= 0:
		return nil
	case c.cfg.Options.DistributeNodes:
		if picked := c.spread(free, n); picked != nil {
			return picked
		}
	}
	return c.pack(free, n)
}

// group sorts free CPUs by what they have in common.
func (c *CPUs) group(free cpuset.CPUSet, by func(numa.CPU) int) map[int][]int {
	groups := map[int][]int{}
	for _, id := range free.List() {
		at := by(c.cfg.Machine.CPUs[id])
		groups[at] = append(groups[at], id)
	}
	return groups
}

// pack fills units from the largest to the smallest.
func (c *CPUs) pack(free cpuset.CPUSet, n int) []int {
	units := []func(numa.CPU) int{
		func(u numa.CPU) int { return u.Socket }, func(u numa.CPU) int { return u.Node },
	}
	if c.cfg.Options.PreferSharedLast {
		units = append(units, func(u numa.CPU) int { return u.Cache })
	}
	if !c.cfg.Options.DistributeCores {
		units = append(units, func(u numa.CPU) int { return u.Core })
	}
	var picked []int
	for _, by := range units {
		whole := c.group(c.cfg.Machine.All(), by)
		for _, at := range c.fullest(free, by) {
			here := c.group(free, by)[at]
			if len(here) == len(whole[at]) && len(here) <= n-len(picked) {
				picked = append(picked, here...)
				free = free.Difference(cpuset.New(here...))
			}
		}
	}
	rest := c.singles(free)
	picked = append(picked, rest[:n-len(picked)]...)
	slices.Sort(picked)
	return picked
}

// fullest are the units by how few of their CPUs are free, so that what is begun
// is used up first.
func (c *CPUs) fullest(free cpuset.CPUSet, by func(numa.CPU) int) []int {
	groups := c.group(free, by)
	list := slices.Collect(maps.Keys(groups))
	sockets := c.group(free, func(u numa.CPU) int { return u.Socket })
	nodes := c.group(free, func(u numa.CPU) int { return u.Node })
	weight := func(at int) (int, int, int) {
		first := c.cfg.Machine.CPUs[groups[at][0]]
		return len(sockets[first.Socket]), len(nodes[first.Node]), len(groups[at])
	}
	slices.SortFunc(list, func(a, b int) int {
		s1, n1, g1 := weight(a)
		s2, n2, g2 := weight(b)
		return cmp.Or(s1-s2, n1-n2, g1-g2, a-b)
	})
	return list
}

// singles are all free CPUs, those of the most used sockets and cores first; to
// spread over cores, the first of every core goes before the second of any.
func (c *CPUs) singles(free cpuset.CPUSet) []int {
	var list []int
	byCore := c.group(free, func(u numa.CPU) int { return u.Core })
	order := c.fullest(free, func(u numa.CPU) int { return u.Core })
	if !c.cfg.Options.DistributeCores {
		for _, core := range order {
			list = append(list, byCore[core]...)
		}
		return list
	}
	for round := 0; len(list) < free.Size(); round++ {
		for _, core := range order {
			if round < len(byCore[core]) {
				list = append(list, byCore[core][round])
			}
		}
	}
	return list
}

// spread takes the same number from each of the fewest nodes that can give it;
// nil when one node will do, or none can.
func (c *CPUs) spread(free cpuset.CPUSet, n int) []int {
	byNode := c.group(free, func(u numa.CPU) int { return u.Node })
	unit := 1
	if c.cfg.Options.FullCores {
		unit = c.perCore()
	}
	best := numa.Nodes(0)
	numa.Subsets(c.cfg.Machine.IDs(), func(s numa.Nodes) {
		k := s.Count()
		if n%(k*unit) != 0 || (best != 0 && (k > best.Count() || (k == best.Count() && s > best))) {
			return
		}
		for _, node := range s.List() {
			if len(byNode[node]) < n/k {
				return
			}
		}
		best = s
	})
	if best.Count() < 2 {
		return nil
	}
	var picked []int
	for _, node := range best.List() {
		picked = append(picked, c.pack(cpuset.New(byNode[node]...), n/best.Count())...)
	}
	slices.Sort(picked)
	return picked
}
