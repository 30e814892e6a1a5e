package numa

import "testing"

// TestMerge: what the policies make of hints, on two nodes.
func TestMerge(t *testing.T) {
	h := func(preferred bool, nodes ...int) Hint { return Hint{Nodes: Of(nodes...), Preferred: preferred} }
	one := func(lists ...[]Hint) []map[string][]Hint {
		var all []map[string][]Hint
		for _, l := range lists {
			all = append(all, map[string][]Hint{"r": l})
		}
		return all
	}
	cpus := []Hint{h(true, 0), h(true, 1), h(false, 0, 1)}
	for name, c := range map[string]struct {
		hints                          []map[string][]Hint
		best, restricted, single, want Nodes
		preferred                      bool
		okRestricted, okSingle         bool
	}{
		"nobody has an opinion": {hints: []map[string][]Hint{nil, nil}, want: Of(0, 1), preferred: true, okRestricted: true, okSingle: true},
		"one provider":          {hints: one(cpus), want: Of(0), preferred: true, okRestricted: true, okSingle: true},
		"a device on node one":  {hints: one(cpus, []Hint{h(true, 1), h(false, 0, 1)}), want: Of(1), preferred: true, okRestricted: true, okSingle: true},
		"they can't meet":       {hints: one([]Hint{h(true, 0)}, []Hint{h(true, 1)}), want: Of(0, 1)},
		"it needs both":         {hints: one([]Hint{h(true, 0, 1)}), want: Of(0, 1), preferred: true, okRestricted: true},
		"only across":           {hints: one([]Hint{h(false, 0, 1)}), want: Of(0, 1)},
		"there is none":         {hints: one(cpus, []Hint{}), want: Of(0)},
	} {
		p := Policy{Name: BestEffort, All: []int{0, 1}}
		got, ok := p.Merge(c.hints)
		if !ok || got.Nodes != c.want || got.Preferred != c.preferred {
			t.Errorf("%s: best-effort says %+v %v, want %v %v", name, got, ok, c.want.List(), c.preferred)
		}
		p.Name = Restricted
		if _, ok := p.Merge(c.hints); ok != c.okRestricted {
			t.Errorf("%s: restricted says %v", name, ok)
		}
		p.Name = Single
		if _, ok := p.Merge(c.hints); ok != c.okSingle {
			t.Errorf("%s: single-numa-node says %v", name, ok)
		}
	}
}

// TestClosest: of two pairs the nearer one is taken.
func TestClosest(t *testing.T) {
	far := map[[2]int]int{{0, 1}: 21, {0, 2}: 12}
	p := Policy{Name: BestEffort, All: []int{0, 1, 2}, Distance: func(a, b int) int {
		if a == b {
			return 10
		}
		return max(far[[2]int{min(a, b), max(a, b)}], 11)
	}}
	hints := []map[string][]Hint{{"r": {{Nodes: Of(0, 1), Preferred: true}, {Nodes: Of(0, 2), Preferred: true}}}}
	if got, _ := p.Merge(hints); got.Nodes != Of(0, 1) {
		t.Errorf("without distances: %v", got.Nodes.List())
	}
	p.Closest = true
	if got, _ := p.Merge(hints); got.Nodes != Of(0, 2) {
		t.Errorf("with distances: %v", got.Nodes.List())
	}
}
