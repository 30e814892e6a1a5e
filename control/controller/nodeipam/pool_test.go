package nodeipam

import (
	"net/netip"
	"strings"
	"testing"
)

func prefixes(text string) (all []netip.Prefix) {
	for _, word := range strings.Fields(text) {
		all = append(all, netip.MustParsePrefix(word))
	}
	return all
}

func TestFree(t *testing.T) {
	for _, c := range []struct {
		name, whole string
		bits        int
		taken       string
		want        string
	}{
		{"the first", "10.42.0.0/16", 24, "", "10.42.0.0/24"},
		{"the next", "10.42.0.0/16", 24, "10.42.0.0/24 10.42.1.0/24", "10.42.2.0/24"},
		{"a larger one takes several", "10.42.0.0/16", 24, "10.42.0.0/22", "10.42.4.0/24"},
		{"a smaller one takes one", "10.42.0.0/16", 24, "10.42.0.128/25", "10.42.1.0/24"},
		{"others' do not matter", "10.42.0.0/16", 24, "10.43.0.0/24 fd00::/64", "10.42.0.0/24"},
		{"all are taken", "10.42.0.0/23", 24, "10.42.0.0/24 10.42.1.0/24", ""},
		{"by one that is larger", "10.42.0.0/16", 24, "10.0.0.0/8", ""},
		{"six", "fd00:1::/48", 64, "fd00:1::/64", "fd00:1:0:1::/64"},
	} {
		p, err := newPool(netip.MustParsePrefix(c.whole), c.bits)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range prefixes(c.taken) {
			p.mark(r, +1)
		}
		got := ""
		if r, ok := p.free(); ok {
			got = r.String()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// What was given back is the last to be given out again.
func TestRound(t *testing.T) {
	p, err := newPool(netip.MustParsePrefix("10.0.0.0/22"), 24)
	if err != nil {
		t.Fatal(err)
	}
	p.mark(netip.MustParsePrefix("10.0.3.0/24"), +1)
	for _, want := range []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.0.0/24"} {
		if r, ok := p.free(); !ok || r.String() != want {
			t.Errorf("%s, want %s", r, want)
		}
	}
}

// A range that two overlapping ones took is free when both are gone.
func TestMark(t *testing.T) {
	p, err := newPool(netip.MustParsePrefix("10.0.0.0/23"), 24)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		taken string
		by    int
		free  bool
	}{{"10.0.0.0/8", +1, false}, {"10.0.1.0/24", +1, false}, {"10.0.0.0/8", -1, true}, {"10.0.0.128/25", +1, false}, {"10.0.1.0/24", -1, true}} {
		p.mark(netip.MustParsePrefix(step.taken), step.by)
		if _, ok := p.free(); ok != step.free {
			t.Errorf("%s %+d: free is %t", step.taken, step.by, ok)
		}
	}
}

func TestRanges(t *testing.T) {
	for text, ok := range map[string]bool{"10.0.0.0/16": true, "10.0.0.0/16 fd00::/56": true, "10.0.0.0/16 10.1.0.0/16": false, "": false, "10.0.0.0/25": false, "fd00::/32": false} {
		if _, err := poolsOf(Config{Clusters: prefixes(text)}); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
